"""From measurements to a recovery without a number to choose: which solver, which rank, when to stop.

    surrogate -> VariationalBayes -> noise, and data enough to trust it: done
                      |          `-> noise, but data scarce: Continuation, quick, then patient -> GaussNewton: exact?
                      `-> no noise: GaussNewton at the rank seen: exact? else a lower level, in the end Continuation

A recovery counts as exact if a matrix of rank r, which has r (d1 + d2 - r) degrees of freedom, fits more measurements than
that to rounding: noise, or too low a rank, would show; and if it fails without the last ones, where these are small.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dmf.arrays.backend import namespace, to_host
from dmf.arrays.interrupts import remembered_interrupts
from dmf.arrays.linalg import factored_svd
from dmf.completion.dense_core import DenseCore, dense_core
from dmf.completion.phases import Phases, Plan
from dmf.models import DeepLinearNetwork
from dmf.models.initialize import balanced_network, truncated_network
from dmf.observations import Entries, Observations
from dmf.recovery.results import Recovery, Status
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.hierarchical import HierarchicalBayes, hierarchical_start, separated
from dmf.solvers.homotopy import Continuation, VariationalBayes

_SCARCE = 2.0  # measurements for each degree of freedom below which noise is not believed at once
_SURE = 2.5  # the same, from which a matrix whose components are all seen is found exactly
_FEWEST = 1.05  # the same, below which a fit proves nothing
_NOISELESS = 3e-2, 1e-4, 1e-7  # of noise, relative, down to which none must be seen for the rank to be tried
_LEVELS = (1e-6, 1e-8, 1e-10, 1e-12)  # of noise, relative, at which a continuation tries the rank that it sees
_QUICK = Continuation()
_PATIENT = Continuation(decay=0.9, floor=1.1, sweeps=10)  # near the information limit, ten times slower
_SMALL = 0.2  # of the one before it
_EARLY_STEPS, _FIRST_STEPS, _MOST_STEPS = 2, 4, 60  # early: at a level at which most ranks are seen, but not all
_START_SWEEPS = 2  # the first sweeps of a solver do what more of them would
_GENEROUS = 4.0  # measurements for each degree of freedom up to which a model with offsets is made wide at once
_CLEAR = 1e-2  # share of the variance that is noise without doubt
_FIRST_BOUND = 10  # on the rank, where none is given; doubled as long as all of it is used


def solve(observations: Observations, plan: Plan) -> Recovery:
    """Recover a matrix of unknown rank and noise level.

    Parameters
    ----------
    observations : Observations
    plan : Plan

    Returns
    -------
    Recovery
        Its options hold "rank", "noise" (standard deviation; 0 where the recovery is exact) and "exact".
    """
    with observations.threads(), remembered_interrupts():
        return _solve(Phases(observations, plan))


def _solve(phases: Phases) -> Recovery:
    observations, plan = phases.observations, phases.plan
    most = min(observations.shape)
    bound = min(_FIRST_BOUND, most) if plan.rank is None else plan.rank
    while True:
        estimate = phases.run("noise", VariationalBayes(until=_NOISELESS[0]), _start(observations, bound, plan))
        if phases.exhausted():
            return _noisy(phases, estimate)
        found = None if _saw_noise(estimate) else _refined(phases, estimate, _EARLY_STEPS)
        if found is None and not _saw_noise(estimate) and not phases.exhausted():
            estimate = _lowered(phases, estimate, _NOISELESS[1])
            found = None if _saw_noise(estimate) or phases.exhausted() else _refined(phases, estimate)
        if found is not None:
            return found
        wider = range(min(2 * bound, most), bound, -1)
        grown = next((width for width in wider if _determined(observations, width, _SCARCE)), bound)
        wanting = plan.rank is None and estimate.options["rank"] == bound < grown
        if phases.exhausted() or not wanting:
            break
        bound = grown
    return _exact(phases, estimate, bound) or _noisy(phases, _settled(phases, estimate))


def solve_with_offsets(observations: Entries, plan: Plan) -> Recovery:
    """Fit factors and offsets together to noisy entries, see `dmf.solvers.hierarchical`.

    Its width is the bound on the rank, or grows as far as the noise level falls. Where a few rows and columns hold much of a
    large table, they are fitted first, and start the fit to all.
    """
    phases = Phases(observations, plan)
    with observations.threads(), remembered_interrupts():
        core = dense_core(observations)
        recovery = _grown(phases, core)
        if core is not None:
            solver = HierarchicalBayes(plan.seed, recovery.options["noise"])
            start, left = core.widened(recovery.network), 0 if phases.exhausted() else None
            del recovery, core  # their memory
            recovery = phases.run("offsets", solver, start, left)
        rank, noise = int(recovery.options["rank"]), recovery.options["noise"]
        sentence = f"rank {rank} and offsets; noise of standard deviation {noise:.3g}."
        status = phases.ended or Status("budget spent" if phases.exhausted() else "converged", sentence)
        network, offsets = separated(recovery.network, observations.centred()[0], rank, plan.depth)
        return replace(_finished(phases, recovery, status), network=network, offsets=offsets)


def _grown(phases: Phases, core: DenseCore | None) -> Recovery:
    """Factors and offsets of the core, or of all entries without one, of the width that they need."""
    plan, observations = phases.plan, phases.observations if core is None else core.observations
    assert isinstance(observations, Entries)

    def fitted(width: int) -> Recovery:
        start = hierarchical_start(observations, width, plan.seed)
        return phases.run("offsets", HierarchicalBayes(plan.seed), start, core=core)

    most = min(observations.shape)
    width = min(_wide(phases.observations) if plan.rank is None else plan.rank, most)
    recovery = fitted(width)
    while plan.rank is None and not phases.exhausted() and recovery.options["rank"] == width < most:
        width = min(2 * width, most)
        wider = fitted(width)
        if wider.options["noise"] >= recovery.options["noise"]:
            break
        recovery = wider
    return recovery


def _wide(observations: Observations) -> int:
    """Width to begin with."""
    width = min(_FIRST_BOUND, *observations.shape)
    while 2 * width <= min(observations.shape) and _determined(observations, 2 * width, _GENEROUS):
        width *= 2
    return width


def sees_noise(recovery: Recovery) -> bool:
    """Whether noise is there beyond doubt.

    It must be of some size, some components must be there, and the entries must be many enough to tell noise from more of
    those; still more of them where all components that the bound allows are needed.
    """
    observations = recovery.observations
    assert isinstance(observations, Entries)
    total = observations.centred()[1].mean_square
    bound = recovery.options["rank_bound"] or _wide(observations)
    rank = recovery.options["rank"]
    settled = rank > 0 and _determined(observations, bound, _SCARCE if rank < bound else _SURE)
    return settled and recovery.options["noise"] ** 2 > _CLEAR * total


def _exact(phases: Phases, estimate: Recovery, bound: int) -> Recovery | None:
    """The exact recovery, if there is one; asked for only as far as the first estimate leaves it possible."""
    observations, plan = phases.observations, phases.plan
    determined = _determined(observations, bound, _SCARCE)
    if _saw_noise(estimate) and determined:
        return None
    found = _refined(phases, estimate) if _saw_noise(estimate) else None  # a good start, even so
    if found is None and not _saw_noise(estimate) and not phases.exhausted():
        estimate = _lowered(phases, estimate, _NOISELESS[2])
        found = _refined(phases, estimate)
    if found is None and not phases.exhausted():
        found = _continued(phases, _QUICK, _start(observations, bound, plan))
    trusted = phases.contradicted and _determined(observations, max(estimate.options["rank"], 1), _SCARCE)
    if found is None and not trusted and not phases.exhausted():
        found = _continued(phases, _PATIENT, _start(observations, bound, plan))
    return found


def _lowered(phases: Phases, estimate: Recovery, until: float) -> Recovery:
    """The estimate of variational Bayes at a lower level of noise."""
    level = VariationalBayes(until=until, start=estimate.options["noise"] ** 2)
    return phases.run("noise", level, estimate.network)


def _saw_noise(estimate: Recovery) -> bool:
    return estimate.status.advice.startswith("the noise")


def _settled(phases: Phases, estimate: Recovery) -> Recovery:
    """The estimate of variational Bayes at the noise level, however low that is."""
    if _saw_noise(estimate) or phases.exhausted():
        return estimate
    return _lowered(phases, estimate, 0.0)


def _start(observations: Observations, bound: int, plan: Plan) -> DeepLinearNetwork:
    """Spectral start whose components have the sizes that fit the measurements best together."""
    u, s, vt = observations.surrogate_svd(bound, plan.seed, _START_SWEEPS)
    scale = abs(observations.best_scale(u * s, vt))
    return balanced_network(u, scale * s, vt, max(plan.depth, 2))  # a single layer would hide the width


def _determined(observations: Observations, rank: int, least: float) -> bool:
    """Whether there are at least `least` different measurements for each degree of freedom of a matrix of this rank."""
    return observations.n_distinct >= least * rank * (sum(observations.shape) - rank)


def _continued(phases: Phases, solver: Continuation, network: DeepLinearNetwork) -> Recovery | None:
    """Follow the homotopy; at each of its levels try the rank that it shows. The exact recovery, if one is found."""
    first = phases.observations.mean_square
    for until in _LEVELS:
        if solver.start is not None and solver.start <= until * first:
            continue
        recovery = phases.run("continue", replace(solver, until=until), network)
        if phases.exhausted():
            return None
        phases.contradicted = "contradicts" in recovery.status.advice
        refined = _refined(phases, recovery)
        if refined is not None or phases.contradicted or phases.exhausted():
            return refined
        solver, network = replace(solver, start=recovery.options["noise"] ** 2), recovery.network
    return None


def _refined(phases: Phases, recovery: Recovery, first: int = _FIRST_STEPS) -> Recovery | None:
    """Gauss-Newton at the rank that `recovery` shows; the recovery if it is exact."""
    observations = phases.observations
    rank = int(recovery.options["rank"])
    if rank == 0 or not _determined(observations, rank, _FEWEST):
        return None
    refined = phases.run("refine", GaussNewton(tries=first), truncated_network(recovery.network, rank), _MOST_STEPS)
    if not _is_exact(observations, refined):
        return None
    fewer = _before_small_ones(refined.network)
    if fewer < rank:
        lower = _refined(phases, replace(refined, options=refined.options | {"rank": fewer}))
        if lower is not None or phases.exhausted():
            return lower
    freedom = rank * (sum(observations.shape) - rank)
    relative = _relative_residual(observations, refined)
    sentence = (
        f"rank {rank}, no noise: its {freedom:,} degrees of freedom fit all {observations.n_measurements:,} measurements "
        f"to {relative:.1g}."
    )
    return _finished(phases, refined, Status("converged", sentence), exact=True)


def _before_small_ones(network: DeepLinearNetwork) -> int:
    """Number of components before the last that is much smaller than the one before it.

    From there on they may be too many: small spikes at entries not seen fit all others.
    """
    s = to_host(factored_svd(*network.factors())[1])
    small = np.flatnonzero(s[1:] < _SMALL * s[:-1])
    return int(small[-1]) + 1 if small.size else s.size


def _relative_residual(observations: Observations, recovery: Recovery) -> float:
    size = observations.mean_square
    return math.sqrt(2 * recovery.history.loss[-1] / size) if size > 0 else 0.0


def _is_exact(observations: Observations, recovery: Recovery) -> bool:
    epsilon = float(namespace(observations.like).finfo(observations.dtype).eps)
    return _relative_residual(observations, recovery) <= epsilon ** (2 / 3)


def _noisy(phases: Phases, estimate: Recovery) -> Recovery:
    rank, noise = int(estimate.options["rank"]), estimate.options["noise"]
    sentence = f"rank {rank}; noise of standard deviation {noise:.3g}."
    if not _determined(phases.observations, max(rank, 1), _SCARCE):
        sentence += " The measurements are few for this rank, and no exact fit was found: more of them would help most."
    if phases.ended is not None:
        return _finished(phases, estimate, phases.ended)
    if phases.observations.mean_square == 0:
        return _finished(phases, estimate, Status("converged", "rank 0, no noise: all measurements are 0."), exact=True)
    return _finished(phases, estimate, Status("budget spent" if phases.exhausted() else "converged", sentence))


def _finished(phases: Phases, recovery: Recovery, status: Status, exact: bool = False) -> Recovery:
    rank = int(recovery.options["rank"])
    options = {
        "rank": rank,
        "rank_bound": phases.plan.rank,
        "noise": 0.0 if exact else recovery.options["noise"],
        "exact": exact,
        "depth": phases.plan.depth,
        "seed": phases.plan.seed,
        "iterations": phases.spent,
        "phases": phases.names,
    }
    network = truncated_network(recovery.network, rank, phases.plan.depth)
    return replace(recovery, network=network, history=phases.history(), status=status, options=options)
