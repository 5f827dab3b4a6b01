"""Whether values were clipped: where they pile up at an end of their range, and held-out entries are then predicted no worse."""

from __future__ import annotations

from typing import Any

from dmf.arrays.backend import namespace, number
from dmf.completion.offsets import some_rows
from dmf.solvers.clipping import ends_of
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.loop import run

_HELD_OUT = 0.1  # share of the entries that decides
_WIDTH, _SWEEPS = 4, 8  # of the two fits that are compared


def range_of_clipped(entries: Any, seed: int) -> tuple[float, float] | None:
    """Ends of the range in which values were clipped, either may be infinite; None where they were not.

    Parameters
    ----------
    entries : Entries
    seed : int
        Of the entries held out to decide it.
    """
    ends = ends_of(entries)
    if ends is None:
        return None
    kept, held = some_rows(entries, seed).split(_HELD_OUT, seed)
    width, xp, squares = min(_WIDTH, *kept.shape), namespace(held.entries), []
    for clipped in (None, ends):
        solver: Any = HierarchicalBayes(width, seed, clipped=clipped, implicit=False)
        done = run(solver, kept, None, iterations=_SWEEPS)
        off = xp.clip(held.product(*done.model.factors()), *ends) - held.entries
        squares.append(number(xp.sum(off * off)))
    return ends if squares[1] < squares[0] else None
