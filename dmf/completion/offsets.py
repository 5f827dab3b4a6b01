"""Mean, row and column offsets before the fit: whether they are part of the model, and whether they dwarf the rest.

Times in milliseconds since 1970 that differ by seconds, or voltages that differ in the seventh digit: beside the mean, all else
is as small as rounding errors are beside other matrices. Such offsets are taken away first, and the rest is fitted on its own;
what counts as fitted to rounding follows from what offsets leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dmf.arrays.backend import Array, namespace, number
from dmf.completion.state import epsilon_of
from dmf.errors import ObservationError
from dmf.models import LowRank
from dmf.models.offsets import Offsets, fit_offsets
from dmf.observations import Entries
from dmf.recovery.results import Recovery
from dmf.recovery.values import UNITS_OF_ROUNDING
from dmf.solvers.outcomes import Outcome

_HELD_OUT = 0.1  # share of the entries that decides whether there are offsets
FEWEST_HELD_OUT = 20  # entries: fewer say too little to choose by
_JUDGED = 500_000  # entries, about, by which that is decided
_ROUNDS = 2  # of fitting offsets for that
_HARDLY_ANY = 1e-2  # share of the mean square: offsets that leave no more may hide the rest behind rounding errors
_TIMES = 4  # that offsets are taken away, at most: a fit of offsets leaves some of them, small beside what it takes


@dataclass(frozen=True, eq=False)
class Rest:
    """Entries, with or without offsets that were taken away.

    Parameters
    ----------
    entries : Entries
        Those to be fitted.
    share : float
        Of the mean square of the entries given, what offsets leave: of some held out, or of all, where hardly anything is left.
    taken : Offsets or None
        What was taken away of the entries given: offsets that dwarf the rest.
    """

    entries: Entries
    share: float
    taken: Offsets | None = None

    def whole(self, model: LowRank) -> LowRank:
        """The model of the entries given, from one of `entries`."""
        if self.taken is None:
            return model
        return replace(model, offsets=self.taken if model.offsets is None else self.taken.plus(model.offsets))


def without_dominant_offsets(entries: Entries, seed: int) -> Rest:
    """The entries, without their offsets where these would hide the rest behind rounding errors.

    Parameters
    ----------
    entries : Entries
    seed : int
        Of the entries held out, which tell what offsets leave.
    """
    share = _share_of_heldout(some_rows(entries, seed), seed)
    if share > _HARDLY_ANY:
        return Rest(entries, share)
    taken, rest = None, entries
    for _ in range(_TIMES):
        following = _leading_offsets(rest)
        less = rest.minus(*following.factors())
        if less.mean_square > _HARDLY_ANY * rest.mean_square:
            break
        taken, rest = following if taken is None else taken.plus(following), less
    share, epsilon = rest.mean_square / entries.mean_square, epsilon_of(entries)
    if taken is not None and (UNITS_OF_ROUNDING * epsilon) ** 2 < share < epsilon**0.5:
        return Rest(rest, share, taken)
    return Rest(entries, share)


def with_exact_offsets(recovery: Recovery) -> Recovery:
    """The recovery, which is exact if offsets alone fit all entries to rounding, and these determine them.

    Offsets have d1 + d2 - 1 degrees of freedom; entries determine them where all rows and columns hang together.
    """
    found, entries = recovery.found, recovery.observations
    if found.rank > 0 or not found.offsets or recovery.outcome.broken_off or not isinstance(entries, Entries):
        return recovery
    fitted = found.relative_residual <= UNITS_OF_ROUNDING * epsilon_of(entries)
    if not fitted or entries.n_distinct < sum(entries.shape) or any(map(_several, entries.connectivity())):
        return recovery
    return replace(recovery, found=replace(found, noise=0.0, exact=True), outcome=Outcome.EXACT)


def _several(labels: Array) -> bool:
    return number(namespace(labels).max(labels)) > 0


def _leading_offsets(entries: Entries) -> Offsets:
    """The mean alone, where row and column offsets leave hardly less: they would add to the rank of what is left."""
    fitted = fit_offsets(entries)
    mean, centred = entries.centred()
    less = entries.minus(*fitted.factors()).mean_square
    return Offsets(mean, 0 * fitted.row, 0 * fitted.col) if _HARDLY_ANY * centred.mean_square <= less else fitted


def some_rows(entries: Entries, seed: int) -> Entries:
    """Rows at random with about `_JUDGED` of many entries: whole passes for this alone would be a tenth of the fit."""
    rows, cols = entries.shape
    count = rows * _JUDGED // entries.n_measurements
    if not 1 <= count < rows:
        return entries
    chosen = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return entries.restricted(chosen, np.arange(cols))


def _share_of_heldout(entries: Entries, seed: int) -> float:
    """Mean square of held-out entries that offsets alone leave, relative to that of the entries."""
    alone = nothing = held_out = 0.0
    while held_out < FEWEST_HELD_OUT:
        try:
            kept, held = entries.split(_HELD_OUT, seed)
        except ObservationError:  # all are of one entry
            return 1.0
        alone += 2 * number(held.loss(*fit_offsets(kept, _ROUNDS).factors()))
        nothing += held.mean_square * held.n_measurements
        held_out, seed = held_out + held.n_measurements, seed + 1
    return alone / nothing if nothing else 1.0
