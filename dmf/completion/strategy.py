"""Which solver comes next: every decision on the way from data to a recovery, as pure functions of what is known so far.

    OFFSETS (CORE, SPREAD)             factors and offsets together, for entries; wider as long as that helps
    NOISE -> REFINE                    is there noise, and of which level? If none is seen: is the rank seen exact?
      LOWER -> REFINE                  the same at a lower level of noise; then at a larger bound on the rank
        LOWEST -> REFINE               only where data are scarce or no noise was seen
          HOMOTOPY -> REFINE ...       noise to zero, level by level, quickly
            PATIENT -> REFINE ...      the same, slowly: near the information limit
              SETTLE                   it is noise after all: its level

A recovery counts as exact if a matrix of rank r, which has r (d1 + d2 - r) degrees of freedom, fits more measurements than
that to rounding: noise, or too low a rank, would show; and if it fails without the last ones, where these are small.

`begin` gives the first task, and `step` the next one from a state and the run of the last task. States and tasks hold arrays and
numbers, never the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dmf.arrays.backend import to_host
from dmf.completion.state import Estimate, Facts, Stage, State, Task
from dmf.models import LowRank
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.homotopy import Continuation, VariationalBayes
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

# Measurements for each degree of freedom ...
PROVES_NOTHING = 1.05  # ... below which an exact fit proves nothing
SCARCE = 2.0  # ... below which noise is not believed at once
AMPLE = 2.5  # ... from which a matrix whose components are all seen is found exactly
GENEROUS = 4.0  # ... up to which a model with offsets is made wide at once

FIRST_BOUND = 10  # on the rank, where none is given; doubled as long as all of it is used
NOISE_LEVELS = (3e-2, 1e-4, 1e-7)  # noise variances, relative, down to which NOISE, LOWER and LOWEST look for noise
HOMOTOPY_LEVELS = (1e-6, 1e-8, 1e-10, 1e-12)  # the same, at which a continuation tries the rank that it sees
PLAIN = 6.0  # ratio of the noise seen to the level that needs too many components, up to which noise explains these
PLAIN_BESIDE_OFFSETS = 50.0  # the same for the noise that offsets alone leave
CLEAR_NOISE = 1e-2  # share of the variance that is noise without doubt
FEW_ENTRIES = (
    5_000  # of which an exact fit is looked for even if noise is seen: it takes no time, and so few may mislead
)
CLEARLY_LESS = 0.5  # of the variance of the noise: what more components must gain
SMALL_COMPONENT = 0.2  # of the one before it: it may be one too many
EARLY_STEPS, FIRST_STEPS, MOST_STEPS = (
    2,
    4,
    60,
)  # of Gauss-Newton; early: at a level at which most ranks are seen, but not all
PATIENT = Continuation(decay=0.9, floor=1.1, sweeps=10)  # near the information limit, ten times slower


Next = tuple[State, Task | None]


def begin(facts: Facts) -> Next:
    """The first task."""
    if facts.offsets:
        smaller = facts.shape if facts.core is None else facts.core
        bound = min(wide(facts) if facts.rank is None else facts.rank, *smaller)
        return _offsets_of_width(State(facts), bound)
    return _without_offsets(State(facts))


def step(state: State, run: Run) -> Next:
    """State and task after the run of the last task; no task once `State.outcome` says how it ended."""
    broken = run.outcome if run.outcome.broken_off else None
    state = replace(state, spent=state.spent + run.nit, broken=broken)
    return _AFTER[state.stage](state, Estimate.of(run))


# Factors and offsets


def _offsets_of_width(state: State, width: int) -> Next:
    stage = Stage.OFFSETS if state.facts.core is None else Stage.CORE
    task = Task(stage, HierarchicalBayes(width, state.facts.seed))
    return replace(state, stage=stage, bound=width), task


def _after_offsets(state: State, found: Estimate) -> Next:
    """Wider, if all components are used and the last widening lowered the noise."""
    facts, before = state.facts, state.with_offsets
    if before is not None and found.noise >= before.noise:
        return _grown(state)
    state = replace(state, with_offsets=found)
    most = min(facts.shape if facts.core is None else facts.core)
    if facts.rank is None and not state.exhausted and found.rank == state.bound < most:
        return _offsets_of_width(state, min(2 * state.bound, most))
    return _grown(state)


def _grown(state: State) -> Next:
    """From the core to all entries; without a core, the fit with offsets is done."""
    found = state.with_offsets
    assert found is not None
    if state.facts.core is None:
        return _offsets_done(state, found)
    solver = HierarchicalBayes(found.model.width, state.facts.seed, found.noise)
    most = 0 if state.exhausted else None
    return replace(state, stage=Stage.SPREAD), Task(Stage.SPREAD, solver, found.model, most)


def _offsets_done(state: State, found: Estimate) -> Next:
    """Whether the fit with offsets stays, or one without has to be tried, too: where noise is in doubt."""
    state = replace(state, with_offsets=found)
    diverged = state.broken is Outcome.DIVERGED
    noise_is_known = sees_noise(state.facts, found) and state.facts.n_measurements > FEW_ENTRIES
    if not state.facts.plain or (not diverged and (state.exhausted or noise_is_known)):
        return _ended(state, _noisy_outcome(state))
    return _without_offsets(replace(state, broken=None))


def wide(facts: Facts) -> int:
    """Width of a model with offsets to begin with."""
    width = min(FIRST_BOUND, *facts.shape)
    while 2 * width <= min(facts.shape) and facts.determined(2 * width, GENEROUS):
        width *= 2
    return width


def sees_noise(facts: Facts, found: Estimate) -> bool:
    """Whether noise is there beyond doubt.

    It must be of some size, some components must be there, and the entries must be many enough to tell noise from more of
    those; still more of them where all components that the bound allows are needed.
    """
    bound = wide(facts) if facts.rank is None else facts.rank
    settled = found.rank > 0 and facts.determined(bound, SCARCE if found.rank < bound else AMPLE)
    return settled and found.noise**2 > CLEAR_NOISE * facts.spread


# Factors alone


def _without_offsets(state: State) -> Next:
    most = min(state.facts.shape)
    return _noise(state, min(FIRST_BOUND, most) if state.facts.rank is None else state.facts.rank)


def _noise(state: State, bound: int) -> Next:
    task = Task(Stage.NOISE, VariationalBayes(until=NOISE_LEVELS[0]), bound)
    return replace(state, stage=Stage.NOISE, bound=bound), task


def _after_noise(state: State, found: Estimate) -> Next:
    state = replace(state, estimate=found)
    if state.exhausted or found.outcome is Outcome.TRIVIAL:
        return _noisy(state)
    if found.saw_noise:
        return _larger_bound(state)
    return _refined(state, found, EARLY_STEPS, Stage.LOWER)


def _lower(state: State, stage: Stage, until: float) -> Next:
    """The estimate of variational Bayes at a lower level of noise."""
    assert state.estimate is not None
    solver = VariationalBayes(until=until, start=state.estimate.noise**2)
    return replace(state, stage=stage), Task(stage, solver, state.estimate.model)


def _after_lower(state: State, found: Estimate) -> Next:
    state = replace(state, estimate=found)
    if state.exhausted:
        return _noisy(state)
    return _larger_bound(state) if found.saw_noise else _refined(state, found, FIRST_STEPS, Stage.NOISE)


def _larger_bound(state: State) -> Next:
    """Again with a larger bound, if all of this one is used and the data determine more; else on to the scarce data."""
    facts, bound, found = state.facts, state.bound, state.estimate
    assert found is not None
    if facts.rank is None and found.rank == bound:
        wider = range(min(2 * bound, *facts.shape), bound, -1)
        grown = next((width for width in wider if facts.determined(width, SCARCE)), bound)
        if grown > bound:
            return _noise(state, grown)
    if not found.saw_noise:
        return _lower(state, Stage.LOWEST, NOISE_LEVELS[2])
    if facts.determined(bound, SCARCE):
        return _noisy(state)
    return _refined(state, found, FIRST_STEPS, Stage.HOMOTOPY)  # a good start, even so


def _after_lowest(state: State, found: Estimate) -> Next:
    return _refined(replace(state, estimate=found), found, FIRST_STEPS, Stage.HOMOTOPY)


def _homotopy(state: State, stage: Stage) -> Next:
    task = Task(stage, _path(state, stage, HOMOTOPY_LEVELS[0]), state.bound)
    return replace(state, stage=stage, homotopy=None, levels=1), task


def _path(state: State, stage: Stage, until: float, start: float | None = None) -> Continuation:
    """A piece of a homotopy, which ends where it fits by more components than could ever prove anything."""
    most = state.facts.largest_rank(state.bound, PROVES_NOTHING)
    return replace(Continuation() if stage is Stage.HOMOTOPY else PATIENT, until=until, start=start, most=most)


def _after_homotopy(state: State, found: Estimate) -> Next:
    state = replace(state, homotopy=found)
    if state.exhausted:
        return _noisy(state)
    return _refined(state, found, FIRST_STEPS, state.stage)


def _next_level(state: State, stage: Stage) -> Next:
    """On along the homotopy, or on to the next one, or there is noise after all."""
    facts, found, estimate = state.facts, state.homotopy, state.estimate
    assert estimate is not None
    if found is None:
        return _homotopy(state, stage)
    level = found.noise**2
    below = [k for k in range(state.levels, len(HOMOTOPY_LEVELS)) if level > HOMOTOPY_LEVELS[k] * facts.mean_square]
    if below and found.outcome is Outcome.PATH_END:
        task = Task(stage, _path(state, stage, HOMOTOPY_LEVELS[below[0]], level), found.model)
        return replace(state, stage=stage, levels=below[0] + 1), task
    if stage is Stage.HOMOTOPY and not _noise_is_plain(state, found, estimate):
        return _homotopy(state, Stage.PATIENT)
    return _noisy(state) if estimate.saw_noise else _settle(state)


def _noise_is_plain(state: State, found: Estimate, estimate: Estimate) -> bool:
    """Whether the quick homotopy met noise, so that the slow one, which takes ten times longer, would meet it, too.

    Data of low rank need too many components only far below the noise that variational Bayes takes them for: at an eighth of it
    or less in all trials near the information limit. Tables with noise need them at a fifth of it or more.
    """
    if found.outcome is Outcome.CONTRADICTED:
        return state.facts.determined(max(estimate.rank, 1), SCARCE)
    if found.outcome is not Outcome.OVERFITTED or not estimate.saw_noise:
        return False
    aside = state.with_offsets
    if aside is not None and aside.rank == 0 and aside.noise**2 < PLAIN_BESIDE_OFFSETS * found.noise**2:
        return True
    return estimate.noise**2 < PLAIN * found.noise**2


def _settle(state: State) -> Next:
    """Down to the noise: from the best fit of fixed rank, where it is below the lowest level at which there was none.

    A wide start would make room for a component in a single row, which shields that row from all others.
    """
    estimate, refined = state.estimate, state.refined
    assert estimate is not None
    if refined is not None and (variance := refined.noise_variance(state.facts)) < estimate.noise**2:
        return replace(state, stage=Stage.SETTLE), Task(
            Stage.SETTLE, VariationalBayes(until=0.0, start=variance), refined.model
        )
    return _lower(state, Stage.SETTLE, 0.0)


def _after_settle(state: State, found: Estimate) -> Next:
    return _noisy(replace(state, estimate=found))


# Exact fits


def _refined(state: State, found: Estimate, tries: int, then: Stage) -> Next:
    """Gauss-Newton at the rank that was found; `then` follows where that is not exact."""
    state = replace(state, then=then)
    if state.exhausted or found.rank == 0 or not state.facts.determined(found.rank, PROVES_NOTHING):
        return _not_exact(state)
    task = Task(Stage.REFINE, GaussNewton(tries=tries), found.model.truncated(found.rank), MOST_STEPS)
    return replace(state, stage=Stage.REFINE), task


def _after_refine(state: State, found: Estimate) -> Next:
    if not found.is_exact(state.facts):
        before, variance = state.refined, found.noise_variance(state.facts)
        if before is None or variance < CLEARLY_LESS * before.noise_variance(state.facts):
            state = replace(state, refined=found)
        return _not_exact(state)
    fewer = before_small_components(found.model)
    state = replace(state, exact=found)
    if fewer < found.rank:
        assert state.then is not None
        return _refined(state, replace(found, rank=fewer), FIRST_STEPS, state.then)
    return _exact(state)


def _not_exact(state: State) -> Next:
    if state.exact is not None:  # it needs all of its components, as far as the budget went
        if state.broken in (Outcome.STOPPED, Outcome.INTERRUPTED):
            return _ended(replace(state, estimate=state.exact, with_offsets=None), state.broken)
        return _exact(state)
    if state.exhausted:
        return _noisy(state)
    match state.then:
        case Stage.LOWER:
            return _lower(state, Stage.LOWER, NOISE_LEVELS[1])
        case Stage.NOISE:
            return _larger_bound(state)
        case Stage.HOMOTOPY | Stage.PATIENT:
            return _next_level(state, state.then)
    raise AssertionError(state.then)


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
        return replace(
            state, exact=found, estimate=replace(found, rank=0), with_offsets=None, outcome=Outcome.EXACT
        ), None
    wished = state.broken in (Outcome.STOPPED, Outcome.INTERRUPTED)
    if aside is not None and aside.outcome is not Outcome.DIVERGED and not wished:
        return _ended(state, Outcome.NOISE_SETTLED)
    return _ended(replace(state, with_offsets=None), _noisy_outcome(state))


def _noisy_outcome(state: State) -> Outcome:
    return state.broken or (Outcome.BUDGET if state.exhausted else Outcome.NOISE_SETTLED)


def _ended(state: State, outcome: Outcome) -> Next:
    return replace(state, outcome=outcome), None


_AFTER: dict[Stage, Callable[[State, Estimate], Next]] = {
    Stage.CORE: _after_offsets,
    Stage.OFFSETS: _after_offsets,
    Stage.SPREAD: _offsets_done,
    Stage.NOISE: _after_noise,
    Stage.LOWER: _after_lower,
    Stage.LOWEST: _after_lowest,
    Stage.REFINE: _after_refine,
    Stage.HOMOTOPY: _after_homotopy,
    Stage.PATIENT: _after_homotopy,
    Stage.SETTLE: _after_settle,
}
