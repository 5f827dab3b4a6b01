"""Is the compressed network ahead of the original at every iteration? Theorem B as a measured statement.

Kwon et al. prove, for every entry observed, the same eps, eta and L, and components that are learned one at a time, that
the compressed network's error is at most the original's at every iteration. `compare` states whether that held for two
given trajectories, and measures the assumption. The notes of `compare` say what a search for counter-examples found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmf.arrays.checks import check_option
from dmf.errors import ArgumentError, ShapeError


@dataclass(frozen=True, eq=False)
class Comparison:
    """Errors of two trajectories, and how far they are ordered.

    Attributes
    ----------
    iteration : int array, shape (n,)
        Iterations that both recorded.
    original, compressed : float64 arrays, shape (n,)
        Their errors.
    held : bool
        Whether ``compressed <= original`` at each of them, up to the tolerance.
    excess : float
        Largest ``compressed - original``, relative to the original's first error; negative if strictly ordered.
    first_violation : int or None
        Iteration.
    overlap : dict of str to float
        For each trajectory with singular values: the largest share of its own value that a component had reached when
        the one before it reached `high`. Components that start above `low` count, as they were never learned.
    incremental : bool or None
        The assumption: whether every overlap is at most `low`. None if neither recorded singular values.
    """

    iteration: np.ndarray
    original: np.ndarray
    compressed: np.ndarray
    held: bool
    excess: float
    first_violation: int | None
    overlap: dict[str, float] = field(default_factory=dict)
    incremental: bool | None = None

    def __str__(self) -> str:
        assumption = {True: "one at a time", False: "overlapping", None: "not recorded"}[self.incremental]
        verdict = "held" if self.held else f"was violated from iteration {self.first_violation} on"
        return (
            f"compressed <= original {verdict} at {len(self.iteration)} iterations (largest excess {self.excess:.2g} of the "
            f"first error); components: {assumption}"
        )


def compare(
    original: Any,
    compressed: Any,
    singular_values: Any = None,
    *,
    low: float = 0.1,
    high: float = 0.9,
    tolerance: float = 1e-10,
) -> Comparison:
    """Compare the errors of the original and the compressed network iteration by iteration.

    That the compressed one is ahead is proved for components that are learned one at a time, which is measured here, and was
    found without exception where its width is the rank; see the notes for wider ones.

    Parameters
    ----------
    original, compressed : Recovery, History or mapping
        With the columns "iteration" and "error", and for the assumption "singular_values", shape (n, >= r): what
        ``CompressedTrajectory.history()`` holds, or a run with the callback `Diagnostics`. Of the same start scale, step
        size and depth.
    singular_values : sequence of r floats, > 0, optional
        Of the target; without it the assumption is not checked.
    low, high : float, 0 < low < high < 1
        A component is begun when it reaches `low` of its singular value, and learned at `high`.
    tolerance : float, >= 0
        Of the ordering, relative to the original's first error: both end at rounding errors, in no order.

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError, ShapeError
        If a column is missing, or no iteration is common to both.

    Notes
    -----
    A theorem for full observation within its assumptions; elsewhere an observation, and not always true. A search by
    benchmarks/ordering_search.py (50 random problems in each region, each moved 30 times towards a violation; sizes 5
    to 24, ranks 1 to 4, depths 2 to 5, scales down to 0.06 of the largest) found, for factorization of square matrices by a
    compressed network whose width is the rank:

    - none in 4,650 problems with eps^L <= s_r, steps up to half of `stable_step_size` and alpha 1, 3 or 0.3, of which 1,941 had
      overlapping components; none in 1,550 with s_r < eps^L <= s_1;
    - 404 of 1,550 for starts above the largest singular value, by up to 0.18 of the first error;
    - 61 of 1,550 for steps between half of the largest stable one and all of it, by up to 0.08, 7 of them with components
      learned one at a time: the compressed network overshoots first. For larger steps nearly all;
    - 83 of 1,550 with weight decay 0.02, all by less than 3e-9, when both have come to rest at one biased solution.

    With width = 2 rank, as the paper takes it, it was violated in 2 of 60 problems of the first region, by up to 0.0013, both of
    size below 3 rank; in none of the 39 larger ones.

    From some entries it was violated in 5 of 50 runs (with width = rank in 1 of 26, by 0.002; with width = 2 rank in 4 of
    24, by up to 0.05, also when sampled more than 3 times over), from Gaussian measurements in 4 of 50, all with
    width = 2 rank. Wider compressed networks fit the surrogate's noise first.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 4.
    """
    check_option("tolerance", tolerance)
    if not 0 < low < high < 1:
        raise ArgumentError(
            f"low={low!r} and high={high!r}, but they are shares with 0 < low < high < 1.",
            argument="low, high",
            value=(low, high),
            limit=(0, 1),
        )
    tables = {"original": _table(original, "original"), "compressed": _table(compressed, "compressed")}
    columns = {
        name: (np.asarray(table["iteration"]), np.asarray(table["error"], float)) for name, table in tables.items()
    }
    iteration, first, second = np.intersect1d(columns["original"][0], columns["compressed"][0], return_indices=True)
    if not len(iteration):
        raise ArgumentError(
            "original and compressed have no recorded iteration in common. Run both with the same record_every.",
            argument="original, compressed",
        )
    ahead, behind = columns["compressed"][1][second], columns["original"][1][first]
    excess = (ahead - behind) / behind[0] if behind[0] else ahead - behind
    violated = ~(excess <= tolerance)  # NaN counts as violated
    overlaps = {}
    if singular_values is not None:
        targets = np.sort(np.asarray(singular_values, float))[::-1]
        overlaps = {
            name: _overlap(np.asarray(table["singular_values"], float), targets, high)
            for name, table in tables.items()
            if "singular_values" in table
        }
    return Comparison(
        iteration,
        behind,
        ahead,
        not violated.any(),
        float(np.max(excess)),
        int(iteration[np.argmax(violated)]) if violated.any() else None,
        overlaps,
        max(overlaps.values()) <= low if overlaps else None,
    )


def _overlap(values: np.ndarray, targets: np.ndarray, high: float) -> float:
    """Largest share of component i + 1 at the first record at which component i has reached `high` of its target."""
    if values.ndim != 2 or values.shape[1] < len(targets):
        raise ShapeError(
            f"singular_values were recorded with shape {values.shape}, but {len(targets)} of them are compared. Record at least "
            "as many.",
            argument="singular_values",
            value=values.shape,
            limit=len(targets),
        )
    shares = values[:, : len(targets)] / targets
    worst = float(shares[0].max())
    for before, after in zip(shares.T, shares.T[1:], strict=False):
        reached = before >= high
        worst = max(worst, float(after[np.argmax(reached)] if reached.any() else after.max()))
    return worst


def _table(source: Any, argument: str) -> Mapping[str, Any]:
    table = getattr(source, "history", source)
    table = table() if callable(table) else table
    missing = [name for name in ("iteration", "error") if name not in table]
    if missing:
        raise ArgumentError(
            f"{argument} has no column {' and no column '.join(map(repr, missing))}. Run with "
            "callback=Diagnostics(target=...), which records the error.",
            argument=argument,
            value=sorted(table),
            limit=("iteration", "error"),
        )
    return table
