"""Drift beside a model: effects of time on what the model leaves of noisy entries, and the model of what these leave, in turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from dmf.observations import SampledEntries
from dmf.recovery.results import Recovery
from dmf.solvers.drift import cross_fitted, fit_drift, less, refitted, without_drift

_ROUNDS = 4  # of fitting the model again, at most
_NEXT_ROUND_SHARE = 0.99  # share of the noise above which one more round changes little


def with_drift(
    recovery: Recovery, entries: SampledEntries, completed: Callable[[SampledEntries], Recovery]
) -> Recovery:
    """The recovery with effects of time, where there is noise and held-out entries speak for them.

    The model is fitted again to entries less what time adds to them as the other entries show: effects that an entry had part in
    would take some of its noise along, and the noise that is left would seem smaller than it is.

    Parameters
    ----------
    recovery : Recovery
        Without drift.
    entries : SampledEntries
        What it was fitted to, with times.
    completed : callable
        The fit to other values of the entries.
    """
    seed = recovery.settings.seed
    if recovery.outcome.broken_off or not recovery.found.noise > 0:
        return recovery
    rest = entries.minus(*recovery.factors())
    drift = fit_drift(rest, seed)
    if drift is None:
        return recovery
    for _ in range(_ROUNDS):
        second = completed(less(entries, cross_fitted(drift, rest, seed)))
        recovery = replace(recovery, runs=second.runs, history=second.history)
        if second.outcome.broken_off:
            recovery = replace(recovery, outcome=second.outcome)
            break
        ratio = second.found.noise / recovery.found.noise
        if not 0 < ratio < 1:
            break
        recovery, rest = second, entries.minus(*second.factors())
        drift = refitted(drift, rest, seed)
        if ratio > _NEXT_ROUND_SHARE:
            break
    left = math.sqrt(without_drift(rest, drift).mean_square / entries.mean_square)
    found = replace(recovery.found, relative_residual=left)
    return replace(recovery, drift=drift, observations=entries, found=found)
