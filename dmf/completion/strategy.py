"""Which solver comes next: every decision on the way from data to a recovery, as pure functions of what is known so far.

    OFFSETS (CORE, SPREAD)             factors and offsets together, for entries; wider as long as that helps
    NOISE -> REFINE                    is there noise, and of which level? If none is seen: is the rank seen exact?
      LOWER -> REFINE                  the same at a lower level of noise; then at a larger bound on the rank
        LOWEST -> REFINE               only where data are scarce or no noise was seen
          HOMOTOPY -> REFINE ...       noise to zero, level by level, quickly
            SLOW_HOMOTOPY -> REFINE .. the same, slowly: near the information limit
              SETTLE                   it is noise after all: its level

A recovery counts as exact if a matrix of rank r, which has r (d1 + d2 - r) degrees of freedom, fits more measurements than
that to rounding: noise, or too low a rank, would show; and if it fails without the last ones, where these are small.

`begin` gives the first task, and `step` the next one from a state, the last task and its run. Neither states nor tasks hold the
data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from dmf.arrays.backend import to_host
from dmf.completion.state import Estimate, Facts, Next, Stage, State, Task
from dmf.models import LowRank
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.homotopy import Continuation, VariationalBayes
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

# Different measurements for each degree of freedom:
PROOF_OVERSAMPLING = 1.05  # with fewer, an exact fit proves nothing
NOISE_OVERSAMPLING = 2.0  # with fewer, noise is not believed at once
FULL_BOUND_OVERSAMPLING = 2.5  # the same where all components that the bound allows are used
LOW_NOISE_OVERSAMPLING = (
    3.0  # the same where that noise is below the first of NOISE_LEVELS: a fit led astray looks like it
)
WIDE_OVERSAMPLING = 4.0  # with fewer at a width, a model with offsets does not begin with it

FIRST_BOUND = 10  # on the rank, where none is given; doubled as long as all of it is used
NOISE_LEVELS = (3e-2, 1e-4, 1e-7)  # noise variances, relative, down to which NOISE, LOWER and LOWEST look for noise
HOMOTOPY_LEVELS = (1e-6, 1e-8, 1e-10, 1e-12)  # the same, at which a homotopy tries the rank that it sees
HOMOTOPIES = {Stage.HOMOTOPY: Continuation(), Stage.SLOW_HOMOTOPY: Continuation(decay=0.9, floor=1.1, sweeps=10)}
# A homotopy ends at a level that needs too many components. Noise of a variance up to this multiple of the level explains them:
EXPLAINING_NOISE = 6.0  # noise that variational Bayes sees
EXPLAINING_NOISE_BESIDE_OFFSETS = 50.0  # noise that offsets alone leave
EXPLAINED_BY_CHANCE = 0.03  # of the variance in the core: prior means that explain no more say nothing of the rest
NOISE_SHARE = 1e-2  # of the variance of the data; noise above it is beyond doubt
ENTRIES_TRIED_ANYWAY = 5_000  # with no more, an exact fit is tried even where noise is seen: they may mislead
BETTER_FIT = 0.5  # a fit is better than another one if it leaves less than this share of its noise variance
SMALL_COMPONENT = 0.2  # a component below this share of the one before it may be one too many
# Steps of Gauss-Newton:
EARLY_STEPS = 2  # by which a rank must look right at the first level, where most ranks are seen, but not all
TRIAL_STEPS = 4  # the same at later levels
MOST_STEPS = 60


def begin(facts: Facts) -> Next:
    """The first task."""
    if facts.offsets:
        smaller = facts.shape if facts.core is None else facts.core
        bound = min(first_width(facts) if facts.rank is None else facts.rank, *smaller)
        return _offsets_of_width(State(facts), bound)
    return _without_offsets(State(facts))


def step(state: State, task: Task, run: Run) -> Next:
    """State and task after the run of a task; no task once `State.outcome` says how it ended."""
    broken = run.outcome if run.outcome.broken_off else None
    state = replace(state, spent=state.spent + run.nit, broken=broken)
    return _AFTER[task.stage](state, Estimate.of(run))


# Factors and offsets


def _offsets_of_width(state: State, width: int) -> Next:
    facts, before = state.facts, state.with_offsets
    most_noise = math.inf if before is None else before.noise
    solver = HierarchicalBayes(width, facts.seed, clipped=facts.clipped, most_noise=most_noise)
    return replace(state, bound=width), Task(Stage.OFFSETS if facts.core is None else Stage.CORE, solver)


def _after_offsets(state: State, found: Estimate) -> Next:
    """Wider, if all components are used and the last widening lowered the noise."""
    facts, before = state.facts, state.with_offsets
    if before is not None and found.noise >= before.noise:
        return _to_all_entries(state)
    state = replace(state, with_offsets=found)
    most = min(facts.shape if facts.core is None else facts.core)
    if facts.rank is None and not state.exhausted and found.rank == state.bound < most:
        return _offsets_of_width(state, min(2 * state.bound, most))
    return _to_all_entries(state)


def _to_all_entries(state: State) -> Next:
    """From the core to all entries; without a core, the fit with offsets is done."""
    found = state.with_offsets
    assert found is not None
    if state.facts.core is None:
        return _offsets_done(state, found)
    implicit = found.explained > EXPLAINED_BY_CHANCE
    solver = HierarchicalBayes(found.model.width, state.facts.seed, found.noise, state.facts.clipped, implicit=implicit)
    most = 0 if state.exhausted else None
    return state, Task(Stage.SPREAD, solver, found.model, most)


def _offsets_done(state: State, found: Estimate) -> Next:
    """Whether the fit with offsets stays, or one without has to be tried, too: where noise is in doubt."""
    state = replace(state, with_offsets=found)
    diverged = state.broken is Outcome.DIVERGED
    noise_is_known = sees_noise(state.facts, found) and state.facts.n_measurements > ENTRIES_TRIED_ANYWAY
    if not state.facts.plain or (not diverged and (state.exhausted or noise_is_known)):
        return _ended(state, _noisy_outcome(state))
    return _without_offsets(replace(state, broken=None))


def first_width(facts: Facts) -> int:
    """Width of a model with offsets to begin with."""
    width = min(FIRST_BOUND, *facts.shape)
    while 2 * width <= min(facts.shape) and facts.determined(2 * width, WIDE_OVERSAMPLING):
        width *= 2
    return width


def sees_noise(facts: Facts, found: Estimate) -> bool:
    """Whether noise is there beyond doubt.

    It must be of some size, some components must be there, and the entries must be many enough to tell noise from more of
    those; still more of them where all components that the bound allows are needed.
    """
    bound = first_width(facts) if facts.rank is None else facts.rank
    least = NOISE_OVERSAMPLING if found.rank < bound else FULL_BOUND_OVERSAMPLING
    return found.rank > 0 and facts.determined(bound, least) and found.noise**2 > NOISE_SHARE * facts.spread


# Factors alone


def _without_offsets(state: State) -> Next:
    most = min(state.facts.shape)
    return _noise(state, min(FIRST_BOUND, most) if state.facts.rank is None else state.facts.rank)


def _noise(state: State, bound: int) -> Next:
    return replace(state, bound=bound), Task(Stage.NOISE, VariationalBayes(until=NOISE_LEVELS[0]), bound)


def _after_noise(state: State, found: Estimate) -> Next:
    state = replace(state, estimate=found)
    if state.exhausted or found.outcome is Outcome.TRIVIAL:
        return _noisy(state)
    if found.saw_noise:
        return _larger_bound(state)
    return _refined(state, found, EARLY_STEPS, _lower)


def _further_down(state: State, stage: Stage, until: float) -> Next:
    """The estimate of variational Bayes at a lower level of noise."""
    assert state.estimate is not None
    solver = VariationalBayes(until=until, start=state.estimate.noise**2)
    return state, Task(stage, solver, state.estimate.model)


def _lower(state: State) -> Next:
    return _further_down(state, Stage.LOWER, NOISE_LEVELS[1])


def _after_lower(state: State, found: Estimate) -> Next:
    state = replace(state, estimate=found)
    if state.exhausted:
        return _noisy(state)
    return _larger_bound(state) if found.saw_noise else _refined(state, found, TRIAL_STEPS, _larger_bound)


def _larger_bound(state: State) -> Next:
    """Again with a larger bound, if all of this one is used and the data determine more; else on to the scarce data."""
    facts, bound, found = state.facts, state.bound, state.estimate
    assert found is not None
    if facts.rank is None and found.rank == bound:
        wider = range(min(2 * bound, *facts.shape), bound, -1)
        grown = next((width for width in wider if facts.determined(width, NOISE_OVERSAMPLING)), bound)
        if grown > bound:
            return _noise(state, grown)
    if not found.saw_noise:
        return _further_down(state, Stage.LOWEST, NOISE_LEVELS[2])
    doubtful = found.rank == bound and found.noise**2 < NOISE_LEVELS[0] * facts.mean_square
    if facts.determined(bound, LOW_NOISE_OVERSAMPLING if doubtful else NOISE_OVERSAMPLING):
        return _noisy(state)
    return _refined(state, found, TRIAL_STEPS, _homotopy)  # a good start, even so


def _after_lowest(state: State, found: Estimate) -> Next:
    return _refined(replace(state, estimate=found), found, TRIAL_STEPS, _homotopy)


def _homotopy(state: State, stage: Stage = Stage.HOMOTOPY) -> Next:
    return state, Task(stage, _path(state, stage, HOMOTOPY_LEVELS[0]), state.bound)


def _path(state: State, stage: Stage, until: float, start: float | None = None) -> Continuation:
    """A piece of a homotopy, which ends where it fits by more components than could ever prove anything."""
    most = state.facts.largest_rank(state.bound, PROOF_OVERSAMPLING)
    return replace(HOMOTOPIES[stage], until=until, start=start, most=most)


def _after_homotopy(stage: Stage, state: State, found: Estimate) -> Next:
    if state.exhausted:
        return _noisy(state)
    return _refined(state, found, TRIAL_STEPS, partial(_next_level, stage, found))


def _next_level(stage: Stage, found: Estimate, state: State) -> Next:
    """On along the homotopy, or on to the next one, or there is noise after all."""
    facts, estimate, level = state.facts, state.estimate, found.noise**2
    assert estimate is not None
    following = next((k for k in HOMOTOPY_LEVELS if level > k * facts.mean_square), None)
    if following is not None and found.outcome is Outcome.PATH_END:
        return state, Task(stage, _path(state, stage, following, level), found.model)
    if stage is Stage.HOMOTOPY and not _noise_explains_it(state, found, estimate):
        return _homotopy(state, Stage.SLOW_HOMOTOPY)
    return _noisy(state) if estimate.saw_noise else _settle(state)


def _noise_explains_it(state: State, found: Estimate, estimate: Estimate) -> bool:
    """Whether the quick homotopy met noise, so that the slow one, which takes ten times longer, would meet it, too.

    Data of low rank need too many components only far below the noise that variational Bayes takes them for: at an eighth of it
    or less in all trials near the information limit. Tables with noise need them at a fifth of it or more.
    """
    if found.outcome is Outcome.CONTRADICTED:
        return state.facts.determined(max(estimate.rank, 1), NOISE_OVERSAMPLING)
    if found.outcome is not Outcome.OVERFITTED or not estimate.saw_noise:
        return False
    aside = state.with_offsets
    if aside is not None and aside.rank == 0 and aside.noise**2 < EXPLAINING_NOISE_BESIDE_OFFSETS * found.noise**2:
        return True
    return estimate.noise**2 < EXPLAINING_NOISE * found.noise**2


def _settle(state: State) -> Next:
    """Down to the noise: from the best fit of fixed rank, where it is below the lowest level at which there was none.

    A wide start would make room for a component in a single row, which shields that row from all others.
    """
    estimate, refined = state.estimate, state.refined
    assert estimate is not None
    if refined is not None and (variance := refined.noise_variance(state.facts)) < estimate.noise**2:
        return state, Task(Stage.SETTLE, VariationalBayes(until=0.0, start=variance), refined.model)
    return _further_down(state, Stage.SETTLE, 0.0)


def _after_settle(state: State, found: Estimate) -> Next:
    return _noisy(replace(state, estimate=found))


# Exact fits


def _refined(state: State, found: Estimate, tries: int, if_not_exact: Callable[[State], Next]) -> Next:
    """Gauss-Newton at the rank that was found; where that is not exact, `if_not_exact` says what follows."""
    state = replace(state, if_not_exact=if_not_exact)
    if state.exhausted or found.rank == 0 or not state.facts.determined(found.rank, PROOF_OVERSAMPLING):
        return _not_exact(state)
    return state, Task(Stage.REFINE, GaussNewton(tries=tries), found.model.truncated(found.rank), MOST_STEPS)


def _after_refine(state: State, found: Estimate) -> Next:
    if not found.is_exact(state.facts):
        before, variance = state.refined, found.noise_variance(state.facts)
        if before is None or variance < BETTER_FIT * before.noise_variance(state.facts):
            state = replace(state, refined=found)
        return _settle(state) if _is_below_homotopies(state, found, variance) else _not_exact(state)
    fewer = before_small_components(found.model)
    state = replace(state, exact=found)
    if fewer < found.rank:
        return _refined(state, replace(found, rank=fewer), TRIAL_STEPS, _exact)
    return _exact(state)


def _is_below_homotopies(state: State, found: Estimate, variance: float) -> bool:
    """Whether all that this fit leaves is noise in which a homotopy would see nothing, down to its end.

    Such as that of measurements written with nine digits: no matrix of too low a rank fits that well. At a level of noise a
    component is seen if its mean square is above that level times its degrees of freedom, over the number of measurements.
    """
    facts = state.facts
    least = HOMOTOPY_LEVELS[-1] * facts.mean_square * facts.freedom(1) / facts.n_measurements
    below = variance < least and facts.determined(found.rank, NOISE_OVERSAMPLING)
    return below and found.outcome is Outcome.STATIONARY and state.exact is None and not state.exhausted


def _not_exact(state: State) -> Next:
    """What follows: the exact fit of a higher rank, where there is one, stays as far as the budget went."""
    if state.exact is not None and state.broken in (Outcome.STOPPED, Outcome.INTERRUPTED):
        return _ended(replace(state, estimate=state.exact, with_offsets=None), state.broken)
    if state.exact is None and state.exhausted:
        return _noisy(state)
    assert state.if_not_exact is not None
    return state.if_not_exact(state)


def before_small_components(model: LowRank) -> int:
    """Number of components before the last that is much smaller than the one before it.

    From there on they may be too many: small spikes at entries not seen fit all others.
    """
    s = to_host(model.s)
    small = np.flatnonzero(s[1:] < SMALL_COMPONENT * s[:-1])
    return int(small[-1]) + 1 if small.size else s.size


# The end


def _exact(state: State) -> Next:
    return replace(state, estimate=state.exact, with_offsets=None, outcome=Outcome.EXACT), None


def _noisy(state: State) -> Next:
    """No exact fit without offsets; one with offsets stays, unless it diverged or the user ended this one."""
    aside, found = state.with_offsets, state.estimate
    assert found is not None
    if state.broken is None and found.outcome is Outcome.TRIVIAL:
        return _exact(replace(state, exact=replace(found, rank=0)))
    wished = state.broken in (Outcome.STOPPED, Outcome.INTERRUPTED)
    if aside is not None and aside.outcome is not Outcome.DIVERGED and not wished:
        return _ended(state, Outcome.NOISE_SETTLED)
    return _ended(replace(state, with_offsets=None), _noisy_outcome(state))


def _noisy_outcome(state: State) -> Outcome:
    return state.broken or (Outcome.BUDGET if state.exhausted else Outcome.NOISE_SETTLED)


def chosen_width(state: State) -> int | None:
    """Width of the model with offsets that was chosen; None where noise was in doubt, so that one without was tried."""
    return None if state.with_offsets is None or state.estimate is not None else state.with_offsets.model.width


def _ended(state: State, outcome: Outcome) -> Next:
    return replace(state, outcome=outcome), None


def interrupted(state: State) -> State | None:
    """The end of a state in which Ctrl-C came between two runs; None if no run has found anything yet."""
    if state.exact is not None:
        state = replace(state, estimate=state.exact)
    if state.estimate is not None:
        return replace(state, with_offsets=None, outcome=Outcome.INTERRUPTED)
    return None if state.with_offsets is None else replace(state, outcome=Outcome.INTERRUPTED)


_AFTER: dict[Stage, Callable[[State, Estimate], Next]] = {
    Stage.CORE: _after_offsets,
    Stage.OFFSETS: _after_offsets,
    Stage.SPREAD: _offsets_done,
    Stage.NOISE: _after_noise,
    Stage.LOWER: _after_lower,
    Stage.LOWEST: _after_lowest,
    Stage.REFINE: _after_refine,
    Stage.HOMOTOPY: partial(_after_homotopy, Stage.HOMOTOPY),
    Stage.SLOW_HOMOTOPY: partial(_after_homotopy, Stage.SLOW_HOMOTOPY),
    Stage.SETTLE: _after_settle,
}
