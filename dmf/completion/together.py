"""Several tables of one shape, completed together: M_k = U C_k V^T, with frames U and V that all tables share.

Ten tables of 300 x 300 at rank 5 have 29,750 degrees of freedom apart, and 3,200 together: each adds only its core C_k (r x r).
Fitted by alternating ridge regressions, whose penalties are those of a Gaussian prior at a level of noise that falls to its
estimate. Whether tables do share frames, entries held out decide: if not, each is completed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from dmf.arrays.backend import to_host
from dmf.completion.calls import complete
from dmf.errors import ArgumentError, ShapeError
from dmf.observations import SampledEntries
from dmf.observations.checks import check_rank
from dmf.observations.conversion import as_entries
from dmf.solvers.outcomes import uninterrupted

_HELD_OUT = 0.1  # share of the entries that decides whether frames are shared
_SWEEPS, _FIRST = 600, 40  # most sweeps; of these the first, in which the level falls slowly whatever its estimate
_DECAY, _SLOW = 0.5, 0.85  # of the level of noise in a sweep
_STILL, _EXACT = 1e-7, 1e-24  # relative fall of the squared residual that ends it; its size, relative, that is rounding
_TO_ROUNDING = 1e-6  # held-out error, relative, of a fit that is exact
_ALONE = 300  # most iterations of a table alone, which with few entries takes thousands to no end
_LEAST = 1e-14  # eigenvalue of a frame's moments, relative: keeps its normalisation invertible


@dataclass(frozen=True, eq=False)
class SharedTable:
    """One of several tables: ``left @ core @ right.T``.

    Attributes
    ----------
    left : float64 array, shape (d1, r)
        U, the same for all tables that share frames.
    core : float64 array, shape (r, r)
        C_k.
    right : float64 array, shape (d2, r)
        V.
    observations : SampledEntries
        The entries of this table.
    """

    left: np.ndarray
    core: np.ndarray
    right: np.ndarray
    observations: SampledEntries

    def product(self) -> np.ndarray:
        """The fitted table, float64 array (d1, d2)."""
        return self.left @ self.core @ self.right.T

    def predict(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Entries of the fitted table at pairs of positions, float64 array (m,)."""
        return np.sum((self.left[np.asarray(rows)] @ self.core) * self.right[np.asarray(cols)], axis=1)

    def filled(self) -> np.ndarray:
        """The whole table, observed entries kept, float64 array (d1, d2)."""
        return self.observations.fill(self.product())


@dataclass(frozen=True, eq=False)
class Together(Sequence):
    """Completed tables, in their order: ``together[k].filled()``.

    Attributes
    ----------
    tables : tuple of SharedTable
    shared : bool
        Whether they share frames; if not, each was completed alone.
    noise : float
        Estimated standard deviation of the noise of an entry, of all tables together; nan if completed alone.
    heldout : dict of str to float
        Root mean square errors on held-out entries: "together" and "apart"; nan where that was not needed or not possible.
    """

    tables: tuple[SharedTable, ...]
    shared: bool
    noise: float
    heldout: dict[str, float]

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, index: Any) -> Any:
        return self.tables[index]


def complete_together(tables: Sequence[Any], rank: int, *, seed: int = 0) -> Together:
    """Complete several tables of the same rows and columns, such as one of each year, that have low-rank structure in common.

    Parameters
    ----------
    tables : sequence of SampledEntries, arrays of shape (d1, d2), or sparse matrices of SciPy
        NaN in an array marks a missing entry. Two or more, of one shape; some may have few entries.
    rank : int, 1 <= rank <= min(d1, d2)
        r, of the shared frames; also the bound for tables that are completed alone.
    seed : int
        Of the split, and of the randomised singular value decomposition.

    Returns
    -------
    Together
        Fitted together or apart, whichever predicts a tenth of the entries better that neither saw; then to all entries.

    Raises
    ------
    ArgumentError, ShapeError, RankError, DTypeError, ObservationError
        If there are fewer than two tables, shapes differ, or the rank is out of range.

    References
    ----------
    .. [1] Gao et al., arXiv 2303.16753 (layers that share the large tensors of a matrix product, and keep small ones each).
    .. [2] Nickel, Tresp, Kriegel, ICML 2011 (the model U C_k V^T, of relations); Kolda, Bader, SIAM Review 51 (2009), section 5.
    """
    if isinstance(tables, (str, bytes)) or not isinstance(tables, (Sequence, np.ndarray)) or len(tables) < 2:
        raise ArgumentError(
            "tables are one table or none, but several are completed together. Pass a list of two or more; complete takes one.",
            argument="tables",
            value=type(tables).__name__,
            limit=2,
        )
    entries = [_on_host(as_entries(table)) for table in tables]
    shapes = sorted({table.shape for table in entries})
    if len(shapes) > 1:
        raise ShapeError(
            f"tables have shapes {', '.join(map(str, shapes))}, but tables completed together have the same rows and columns. "
            "Give each all rows and columns; those that one lacks stay empty.",
            argument="tables",
            value=shapes,
            limit=shapes[0],
        )
    rank = check_rank(rank, shapes[0])
    parts = [_divided(table, seed) for table in entries]
    tried = _fitted([part[0] for part in parts], rank)[0]
    errors = {"together": _error(tried, parts), "apart": float("nan")}
    if errors["together"] > _TO_ROUNDING * _size(entries):  # a fit that holds so well needs no comparison
        errors["apart"] = _error([_alone(part[0], rank, seed) for part in parts], parts)
    if errors["apart"] < errors["together"]:
        return Together(tuple(_alone(table, rank, seed) for table in entries), False, np.nan, errors)
    final, noise = _fitted(entries, rank)
    return Together(tuple(final), True, noise, errors)


def _on_host(entries: Any) -> SampledEntries:
    return SampledEntries(
        to_host(entries.rows), to_host(entries.cols), to_host(entries.entries).astype(float), entries.shape
    )


def _divided(table: SampledEntries, seed: int) -> tuple[SampledEntries, SampledEntries | None]:
    """Entries kept and held out; of a table too small to divide, none."""
    return table.split(_HELD_OUT, seed) if table.n_distinct >= 2 / _HELD_OUT else (table, None)


def _error(tables: Sequence[SharedTable], parts: list[tuple[SampledEntries, SampledEntries | None]]) -> float:
    """Root mean square error on held-out entries; nan if there are none."""
    pairs = [(table, held) for table, (_, held) in zip(tables, parts, strict=True) if held is not None]
    squares = [(held.values - table.predict(held.rows, held.cols)) ** 2 for table, held in pairs]
    return float(np.sqrt(np.mean(np.concatenate(squares)))) if squares else float("nan")


def _size(tables: list[SampledEntries]) -> float:
    """Root mean square of all entries."""
    return float(np.sqrt(np.mean(np.concatenate([t.values for t in tables]) ** 2)))


def _alone(table: SampledEntries, rank: int, seed: int) -> SharedTable:
    left, right = uninterrupted(complete(table, rank, offsets=False, iterations=_ALONE, seed=seed)).factors()
    return SharedTable(left, np.eye(left.shape[1]), right.T, table)


def _fitted(tables: list[SampledEntries], rank: int) -> tuple[list[SharedTable], float]:
    """All tables in shared frames, and the estimate of the noise."""
    (d1, d2), count = tables[0].shape, len(tables)
    rows, cols, values = (np.concatenate([getattr(t, name) for t in tables]) for name in ("rows", "cols", "values"))
    which = np.repeat(np.arange(count), [t.n_measurements for t in tables])
    m, total = values.size, float(values @ values)
    freedom = rank * (d1 + d2) + count * rank**2 - 2 * rank**2
    left, right = _frame(rows, which * d2 + cols, values, rank, d1), _frame(cols, which * d1 + rows, values, rank, d2)
    cores, level, spread, square, estimate = np.zeros((count, rank, rank)), total / m, total / m / rank**2, np.inf, 0.0
    for sweep in range(_SWEEPS):
        if total == 0:
            break
        pairs = (left[rows][:, :, None] * right[cols][:, None, :]).reshape(m, -1)
        cores = _regressed(count, which, pairs, values, level / spread).reshape(count, rank, rank)
        left = _regressed(d1, rows, np.einsum("mab,mb->ma", cores[which], right[cols]), values, level)
        left, turn = _normalised(left)
        cores = turn @ cores
        right = _regressed(d2, cols, np.einsum("mab,ma->mb", cores[which], left[rows]), values, level)
        right, turn = _normalised(right)
        cores = cores @ turn.T
        spread = max(float(np.mean(cores**2)), np.finfo(float).tiny)
        residual = values - np.einsum("ma,mab,mb->m", left[rows], cores[which], right[cols])
        last, square = square, float(residual @ residual)
        estimate = square / max(m - freedom, m / 10)
        level = max(level * (_SLOW if sweep < _FIRST else _DECAY), min(estimate, level))
        if square <= _EXACT * total or (sweep > 2 * _FIRST and abs(last - square) <= _STILL * square):
            break
    return [SharedTable(left, core, right, t) for core, t in zip(cores, tables, strict=True)], float(np.sqrt(estimate))


def _frame(index: np.ndarray, other: np.ndarray, values: np.ndarray, rank: int, size: int) -> np.ndarray:
    """Top left singular vectors of all tables side by side, (size, rank), of mean square 1.

    Of the Gram matrix without its diagonal, which holds the squares of single entries and is no product of two of them.
    """
    wide = scipy.sparse.csr_array((values, (index, other)), (size, int(other.max()) + 1))
    gram = (wide @ wide.T).toarray()
    np.fill_diagonal(gram, 0.0)
    return np.linalg.eigh(gram)[1][:, : -rank - 1 : -1] * np.sqrt(size)


def _regressed(count: int, owner: np.ndarray, design: np.ndarray, values: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge regression of the values of each of `count` owners on their rows of `design`, float64 array (count, w)."""
    m, width = design.shape
    sums = scipy.sparse.csr_array((np.ones(m), (owner, np.arange(m))), (count, m))
    normal = (sums @ (design[:, :, None] * design[:, None, :]).reshape(m, -1)).reshape(count, width, width)
    floor = _LEAST * (1 + float(np.max(np.trace(normal, axis1=1, axis2=2))))
    normal[:, np.arange(width), np.arange(width)] += max(penalty, floor)
    return np.linalg.solve(normal, (sums @ (design * values[:, None]))[:, :, None])[:, :, 0]


def _normalised(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame with moments I, and the matrix R that turns it back: ``frame = new @ R``."""
    moments = frame.T @ frame / len(frame)
    moments += _LEAST * (np.trace(moments) or 1.0) * np.eye(len(moments))
    root = np.linalg.cholesky(moments)
    return np.linalg.solve(root, frame.T).T, root.T
