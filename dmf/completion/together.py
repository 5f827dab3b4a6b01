"""Several tables of one shape, completed together: M_k = U C_k V^T, with frames U and V that all tables share.

Ten tables of 300 x 300 at rank 5 have 29,750 degrees of freedom apart, and 3,200 together: each adds only its core C_k (r x r).
Fitted by alternating ridge regressions, whose penalties are those of a Gaussian prior at a level of noise that falls to its
estimate. Whether tables do share frames, entries held out decide: if not, each is completed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from dmf.arrays.backend import free_memory
from dmf.arrays.linalg import truncated_svd
from dmf.completion.calls import complete
from dmf.errors import ArgumentError, ShapeError
from dmf.observations import SampledEntries
from dmf.observations.checks import check_rank
from dmf.observations.conversion import on_host
from dmf.recovery.intervals import root_mean_square
from dmf.solvers.outcomes import uninterrupted

_HELD_OUT = 0.1  # share of the entries that decides whether frames are shared
_SWEEPS, _FIRST = 600, 40  # most sweeps; of these the first, in which the level falls slowly whatever its estimate
_DECAY, _SLOW = 0.5, 0.85  # of the level of noise in a sweep
_STILL, _EXACT = 1e-7, 1e-24  # relative fall of the squared residual that ends it; its size, relative, that is rounding
_TO_ROUNDING = 1e-6  # held-out error, relative, of a fit that is exact
_ALONE = 300  # most iterations of a table alone, which with few entries takes thousands to no end
_AT_ONCE = 2**23  # numbers of a temporary array
_DENSE = 2_000  # rows or columns up to which their Gram matrix is formed
_ONE_BY_ONE = 100  # owners; the normal matrices of fewer are summed one by one
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

    def filled(self) -> Any:
        """The whole table, observed entries kept: float64 array (d1, d2), or the data frame or DataArray that it came as."""
        return self.observations.restored(self.product())


@dataclass(frozen=True, eq=False)
class Together(Sequence):
    """Completed tables, in their order: ``together[k].filled()``.

    Attributes
    ----------
    tables : tuple of SharedTable
    shared : bool
        Whether they share frames; if not, each was completed alone.
    noise : float
        Estimated standard deviation of the noise of an entry of weight 1, of all tables together; nan if completed alone.
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
    tables : sequence of SampledEntries, arrays or data frames of shape (d1, d2), or sparse matrices of SciPy
        NaN in an array marks a missing entry; SampledEntries may have weights. Two or more, of one shape;
        some may have few entries.
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
        If there are fewer than two tables, shapes differ, or the rank is out of range, or too large for the memory.

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
    entries = [on_host(table) for table in tables]
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


def _divided(table: SampledEntries, seed: int) -> tuple[SampledEntries, SampledEntries | None]:
    """Entries kept and held out; of a table too small to divide, none."""
    return table.split(_HELD_OUT, seed) if table.n_distinct >= 2 / _HELD_OUT else (table, None)


def _error(tables: Sequence[SharedTable], parts: list[tuple[SampledEntries, SampledEntries | None]]) -> float:
    """Root mean square error on held-out entries, each counted by its weight; nan if there are none."""
    pairs = [(table, held) for table, (_, held) in zip(tables, parts, strict=True) if held is not None]
    if not pairs:
        return float("nan")
    errors = np.concatenate([held.entries - table.predict(held.rows, held.cols) for table, held in pairs])
    return root_mean_square(errors, _weights([held for _, held in pairs])[0])[0]


def _size(tables: list[SampledEntries]) -> float:
    """Root mean square of all entries."""
    return root_mean_square(np.concatenate([t.entries for t in tables]), _weights(tables)[0])[0]


def _weights(tables: list[SampledEntries]) -> tuple[np.ndarray, float]:
    """Weights of all entries, brought to mean 1, and what their mean was."""
    weights = np.concatenate([np.ones(t.n_measurements) if t.weights is None else t.weights for t in tables])
    mean = float(weights.mean())
    return weights / mean, mean


def _alone(table: SampledEntries, rank: int, seed: int) -> SharedTable:
    left, right = uninterrupted(complete(table, rank, offsets=False, iterations=_ALONE, seed=seed)).factors()
    return SharedTable(left, np.eye(left.shape[1]), right.T, table)


def _fitted(tables: list[SampledEntries], rank: int) -> tuple[list[SharedTable], float]:
    """All tables in shared frames, and the estimate of the noise of an entry of weight 1."""
    (d1, d2), count = tables[0].shape, len(tables)
    _check_memory(count, rank, max(d1, d2))
    rows, cols, values = (np.concatenate([getattr(t, name) for t in tables]) for name in ("rows", "cols", "entries"))
    weights, mean_weight = _weights(tables)
    roots, unit = np.sqrt(weights), float(np.abs(values).max()) or 1.0  # squares of extreme numbers would be lost
    values = roots * (values / unit)
    which = np.repeat(np.arange(count), [t.n_measurements for t in tables])
    m, total = values.size, float(values @ values)
    freedom = rank * (d1 + d2) + count * rank**2 - 2 * rank**2
    left = _frame(rows, which * d2 + cols, roots * values, rank, d1)
    right = _frame(cols, which * d1 + rows, roots * values, rank, d2)
    cores, level, spread, square, estimate = np.zeros((count, rank, rank)), total / m, total / m / rank**2, np.inf, 0.0

    def pairs(part: slice) -> np.ndarray:
        outer = left[rows[part]][:, :, None] * right[cols[part]][:, None, :]
        return roots[part, None] * outer.reshape(-1, rank**2)

    def of_rows(part: slice) -> np.ndarray:
        return roots[part, None] * np.einsum("mab,mb->ma", cores[which[part]], right[cols[part]])

    def of_cols(part: slice) -> np.ndarray:
        return roots[part, None] * np.einsum("mab,ma->mb", cores[which[part]], left[rows[part]])

    for sweep in range(_SWEEPS):
        if total == 0:
            break
        cores = _regressed(count, rank**2, which, pairs, values, level / spread).reshape(count, rank, rank)
        left, turn = _normalised(_regressed(d1, rank, rows, of_rows, values, level))
        cores = turn @ cores
        right, turn = _normalised(_regressed(d2, rank, cols, of_cols, values, level))
        cores = cores @ turn.T
        spread = max(float(np.mean(cores**2)), np.finfo(float).tiny)
        fitted = [np.sum(of_rows(part) * left[rows[part]], axis=1) for part in _parts(m, rank**2)]
        residual = values - np.concatenate(fitted)
        last, square = square, float(residual @ residual)
        estimate = square / max(m - freedom, m / 10)
        level = max(level * (_SLOW if sweep < _FIRST else _DECAY), min(estimate, level))
        if square <= _EXACT * total or (sweep > 2 * _FIRST and abs(last - square) <= _STILL * square):
            break
    noise = unit * float(np.sqrt(mean_weight) * np.sqrt(estimate))
    return [SharedTable(left, unit * core, right, t) for core, t in zip(cores, tables, strict=True)], noise


def _check_memory(count: int, rank: int, size: int) -> None:
    """Raise ArgumentError where the normal matrices of cores or of rows do not fit into memory."""
    needed = 2 * 8 * max(count * rank**4, size * rank**2)  # with what solves them
    available = free_memory(np.zeros(1))
    if available is not None and needed > available:
        raise ArgumentError(
            f"rank={rank}, but the normal matrices of {count} tables of that rank take {needed / 1e9:.1f} GB, and this machine "
            f"has {available / 1e9:.1f} GB. Pass a lower rank, or fewer tables.",
            argument="rank",
            value=rank,
            limit=available,
        )


def _parts(m: int, width: int) -> list[slice]:
    """Consecutive parts of m measurements, for arrays with `width` numbers for each."""
    size = max(_AT_ONCE // width, 1)
    return [slice(k, min(k + size, m)) for k in range(0, m, size)]


def _frame(index: np.ndarray, other: np.ndarray, values: np.ndarray, rank: int, size: int) -> np.ndarray:
    """Top left singular vectors of all tables side by side, (size, rank), of mean square 1.

    Of the Gram matrix without its diagonal, which holds the squares of single entries and is no product of two of them.
    """
    wide = scipy.sparse.csr_array((values, (index, other)), (size, int(other.max()) + 1))
    if size > _DENSE:
        diagonal = np.bincount(index, values**2, size)[:, None]
        shift = diagonal.max()  # so that no eigenvalue is negative

        def shifted(block: np.ndarray) -> np.ndarray:
            return wide @ (wide.T @ block) + (shift - diagonal) * block

        return truncated_svd(shifted, shifted, (size, size), rank, like=values)[0] * np.sqrt(size)
    gram = (wide @ wide.T).toarray()
    np.fill_diagonal(gram, 0.0)
    return np.linalg.eigh(gram)[1][:, : -rank - 1 : -1] * np.sqrt(size)


def _regressed(
    count: int,
    width: int,
    owner: np.ndarray,
    design: Callable[[slice], np.ndarray],
    values: np.ndarray,
    penalty: float,
) -> np.ndarray:
    """Ridge regression of the values of each of `count` owners on their rows of the design, float64 array (count, width).

    The design (m, width) is made in parts, and never whole.
    """
    normal, moments = np.zeros((count, width, width)), np.zeros((count, width))
    for part in _parts(values.size, width if count < _ONE_BY_ONE else width * width):
        rows, owners = design(part), owner[part]
        if count < _ONE_BY_ONE:
            for k in np.unique(owners):
                mine = rows[owners == k]
                normal[k] += mine.T @ mine
                moments[k] += values[part][owners == k] @ mine
            continue
        sums = scipy.sparse.csr_array((np.ones(len(rows)), (owners, np.arange(len(rows)))), (count, len(rows)))
        normal += (sums @ (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)).reshape(normal.shape)
        moments += sums @ (rows * values[part, None])
    floor = _LEAST * (1 + float(np.max(np.trace(normal, axis1=1, axis2=2))))
    normal[:, np.arange(width), np.arange(width)] += max(penalty, floor)
    return np.linalg.solve(normal, moments[:, :, None])[:, :, 0]


def _normalised(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame with moments I, and the matrix R that turns it back: ``frame = new @ R``."""
    moments = frame.T @ frame / len(frame)
    moments += _LEAST * (np.trace(moments) or 1.0) * np.eye(len(moments))
    root = np.linalg.cholesky(moments)
    return np.linalg.solve(root, frame.T).T, root.T
