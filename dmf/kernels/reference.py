"""The kernels in plain array code: slow, the same on every array library, and the definition of what a kernel computes."""

from __future__ import annotations

from dmf.arrays.backend import Array, device, namespace, number, to_host
from dmf.kernels.prepared import Prepared

_BLOCK_BYTES = 2**21  # of dense matrices: they are still in the cache when the residual comes back to them


def sampled_product(left: Array, right: Array, rows: Array, cols: Array) -> Array:
    """Entries of a factored matrix, without forming it. O(m r) memory.

    Parameters
    ----------
    left : array, shape (d1, r)
    right : array, shape (r, d2)
    rows, cols : integer arrays, shape (m,)
        In range; not checked.

    Returns
    -------
    array, shape (m,)
        ``(left @ right)[rows[k], cols[k]]``.
    """
    xp = namespace(left, right, rows, cols)
    return xp.sum(xp.take(left, rows, axis=0) * xp.matrix_transpose(xp.take(right, cols, axis=1)), axis=1)


def _slots(keys, count, like):
    """Positions of the samples of each key, shape (count, most of one key); len(keys) where there are fewer."""
    xp = namespace(like)
    keys = [int(key) for key in to_host(keys)]
    found: list[list[int]] = [[] for _ in range(count)]
    for position, key in enumerate(keys):
        found[key].append(position)
    most = max(map(len, found))
    table = [positions + [len(keys)] * (most - len(positions)) for positions in found]
    return xp.asarray(table, dtype=xp.int64, device=device(like))


class SampledEntries:
    """Products of a sparse d1 x d2 matrix R, known at m positions, with factors.

    Parameters
    ----------
    rows, cols : int32 arrays, shape (m,)
        Sorted by row, then by column; in range; repeated pairs allowed.
    shape : (int, int)
        (d1, d2).
    """

    def __init__(self, rows: Array, cols: Array, shape: tuple[int, int]) -> None:
        self._rows, self._cols = rows, cols
        self._row_slots = _slots(rows, shape[0], rows)
        self._col_slots = _slots(cols, shape[1], cols)

    @staticmethod
    def arrange(rows: Array, cols: Array, values: Array, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Positions in range and their values (m,), sorted by row, then by column, then in the order given.

        The arrays themselves where they are in that order.
        """
        xp = namespace(rows, cols, values)
        keys = xp.astype(rows, xp.int64) * shape[1] + xp.astype(cols, xp.int64)
        if keys.shape[0] == 0 or bool(xp.all(keys[1:] >= keys[:-1])):
            return rows, cols, values
        order = xp.argsort(keys, stable=True)
        return xp.take(rows, order), xp.take(cols, order), xp.take(values, order)

    def prepare(self, values: Array | Prepared) -> Prepared:
        """Numbers of the samples (m,) for the methods below, which take an array as well, but then prepare it in each call."""
        if isinstance(values, Prepared):
            return values
        return Prepared(values, lambda a: namespace(a).take(a, namespace(a).argsort(self._cols, stable=True)))

    def counts(self, side: int) -> Array:
        """Number of positions in each row (side 0) or column (side 1), int64."""
        xp, slots = namespace(self._rows), (self._row_slots, self._col_slots)[side]
        return xp.sum(xp.astype(slots < self._rows.shape[0], xp.int64), axis=1)

    def product(self, left: Array, right: Array) -> Array:
        """Entries of ``left @ right`` at the positions, shape (m,)."""
        return sampled_product(left, right, self._rows, self._cols)

    def adjoint(self, weights: Array | Prepared, left: Array, right: Array) -> tuple[Array, Array]:
        """``R @ right^T`` (d1, r) and ``left^T @ R`` (q, d2) for the R that holds `weights` (m,).

        The widths q of `left` (d1, q) and r of `right` (r, d2) are usually one; 0 spares the work for that product.
        """
        weights = self.prepare(weights).by_row
        xp = namespace(weights, left, right)
        terms = weights[:, None] * xp.matrix_transpose(xp.take(right, self._cols, axis=1))
        grad_left = _sum_slots(xp, terms, self._row_slots)
        terms = weights[:, None] * xp.take(left, self._rows, axis=0)
        return grad_left, xp.matrix_transpose(_sum_slots(xp, terms, self._col_slots))

    def residual(self, values: Array | Prepared, left: Array, right: Array) -> tuple[Array, Array, Array]:
        """Half the squared residual on the samples (float64), and `adjoint` of the residual ``product - values``."""
        values = self.prepare(values).by_row
        xp = namespace(values, left, right)
        residual = self.product(left, right) - values
        loss = 0.5 * xp.sum(xp.astype(residual, xp.float64) ** 2)
        return loss, *self.adjoint(residual, left, right)

    def ridge(
        self,
        side: int,
        values: Array | Prepared,
        factor: Array,
        penalty: Array,
        variances: Array | None,
        means: Array | None,
        roots: Array | Prepared | None = None,
    ) -> tuple[Array, Array | None, float, float, float]:
        """Rows of one factor of ``left @ right^T`` that fit the samples best, the other one given.

        With the design matrix D_i of a row (the rows of `factor` that its samples meet, times the roots of their weights) and
        the sum a_i of their variances, times their weights,
        a row solves ``N_i x_i = D_i^T y_i + penalty mean_i`` for ``N_i = D_i^T D_i + diag(a_i + penalty)``. Penalties count
        as at least 8 w eps times the diagonal of the rest, and pivots of the Cholesky factor as 8 eps times that of N_i:
        where N_i is singular up to rounding, x_i stays finite.

        Parameters
        ----------
        side : {0, 1}
            0: the left factor is fitted; 1: the right one is.
        values : array, shape (m,)
        factor : array, shape (d2, w) for side 0, (d1, w) for side 1
        penalty : array, shape (w,)
            Positive.
        variances : array shaped as `factor`, or None
        means : array, shape (n, w), or None
            What the penalty draws the rows to; zero unless given.
        roots : array, shape (m,), or None
            Square roots of the weights of the samples, whose `values` are multiplied by them already; 1 unless given.

        Returns
        -------
        rows : array, shape (n, w)
        inverses : array, shape (n, w), or None
            Of the diagonals of the N_i; None without variances.
        square, uncertainty, freedom : float
            Sums over the rows of ``||D_i x_i - y_i||^2``, ``<a_i, x_i^2>`` and
            ``<diag(D_i^T D_i) + a_i, 1 / diag(N_i)>``, in float64; the last two are 0 without variances.
        """
        values, roots = self.prepare(values).by_row, None if roots is None else self.prepare(roots).by_row
        xp = namespace(values, factor, penalty)
        slots, index = (self._row_slots, self._cols) if side == 0 else (self._col_slots, self._rows)
        met = xp.take(factor, index, axis=0)
        design = _in_slots(xp, met if roots is None else roots[:, None] * met, slots)
        target = _in_slots(xp, values[:, None], slots)
        transposed = xp.matrix_transpose(design)
        normal = transposed @ design
        diagonal = xp.linalg.diagonal(normal)
        if variances is not None:
            met = xp.take(variances, index, axis=0)
            added = _sum_slots(xp, met if roots is None else roots[:, None] ** 2 * met, slots)
            diagonal = diagonal + added
        identity = xp.eye(factor.shape[1], dtype=factor.dtype, device=device(factor))
        least = 8 * factor.shape[1] * xp.finfo(factor.dtype).eps * diagonal
        penalty = xp.where(penalty > least, penalty, least)
        whole = diagonal + penalty
        root = _cholesky(xp, normal * (1 - identity) + whole[:, :, None] * identity)
        right = transposed @ target
        if means is not None:
            right = right + (penalty * means)[:, :, None]
        rows = xp.linalg.solve(xp.matrix_transpose(root), xp.linalg.solve(root, right))
        square = number(xp.sum(_double(xp, design @ rows - target) ** 2))
        rows = rows[:, :, 0]
        if variances is None:
            return rows, None, square, 0.0, 0.0
        uncertainty = number(xp.sum(_double(xp, rows) ** 2 * _double(xp, added)))
        freedom = number(xp.sum(_double(xp, diagonal) / _double(xp, whole)))
        return rows, 1 / whole, square, uncertainty, freedom

    def tangent_system(self, u: Array, vt: Array, damping: float):
        """Linearised least squares with one factor eliminated; None: its twin is `Observations.tangent_step`."""
        return

    def descent(self, values: Array | Prepared, widths: tuple[int, ...]):
        """Compiled chunk of descent steps; None: the twin of such a chunk is the loop in `dmf.solvers.descent`."""
        return


def dense_residual(matrices: Array, rows: Array | None, values: Array, matrix: Array) -> tuple[Array, Array]:
    """Residual of inner products with dense matrices: its loss and its adjoint. Each matrix is read from memory once.

    Parameters
    ----------
    matrices : array, shape (count, d1 * d2)
        One flattened matrix A_i in each row.
    rows : int64 array, shape (m,), or None
        Which of them measure, distinct and in range; not checked. None: all, in their order.
    values : array, shape (m,)
        What they measured.
    matrix : array, shape (d1 * d2,)
        The flattened matrix X.

    Returns
    -------
    loss : float64 array, shape ()
        ``1/2 sum_k r_k^2`` with ``r_k = <A_rows[k], X> - values[k]``.
    gradient : array, shape (d1 * d2,)
        ``sum_k r_k A_rows[k]``.
    """
    xp = namespace(matrices, values, matrix)
    gradient = xp.zeros_like(matrix)
    loss = xp.zeros((), dtype=xp.float64, device=device(values))
    step = max(1, _BLOCK_BYTES // (matrix.shape[0] * xp.finfo(matrices.dtype).bits // 8))
    for first in range(0, values.shape[0], step):
        end = min(first + step, values.shape[0])
        block = matrices[first:end, :] if rows is None else xp.take(matrices, rows[first:end], axis=0)
        residual = block @ matrix - values[first:end]
        gradient = gradient + residual @ block
        loss = loss + 0.5 * xp.sum(xp.astype(residual, xp.float64) ** 2)
    return loss, gradient


def restricted_map(
    matrices: Array, rows: Array | None, shape: tuple[int, int], left: Array | None, right: Array | None
) -> Array:
    """Inner products with dense matrices as a linear map of factors: ``<A_i, P right^T>``, ``<A_i, left Q^T>``, or their sum.

    Parameters
    ----------
    matrices : array, shape (count, d1 * d2)
        One flattened matrix A_i in each row.
    rows : int64 array, shape (m,), or None
        Which of them measure, in range; not checked. None: all, in their order.
    shape : (int, int)
        (d1, d2).
    left : array, shape (d1, w), or None
        At least one of `left` and `right` is given.
    right : array, shape (d2, w), or None

    Returns
    -------
    array, shape (m, n w)
        The columns belong to P (d1, w), if `right` is given, then to Q (d2, w), if `left` is; both flattened row by row.
    """
    xp = namespace(matrices)
    if rows is not None:
        matrices = xp.take(matrices, rows, axis=0)
    count = matrices.shape[0]
    stack, parts = xp.reshape(matrices, (count, *shape)), []
    if right is not None:
        parts.append(stack @ right)
    if left is not None:
        parts.append(xp.matrix_transpose(xp.matrix_transpose(left) @ stack))
    return xp.concat([xp.reshape(part, (count, part.shape[1] * part.shape[2])) for part in parts], axis=1)


def _in_slots(xp, terms, slots):
    """Terms (m, w) of each row or column, shape (n, most of one, w); zeros where there are fewer."""
    count, most = slots.shape
    padded = xp.concat([terms, xp.zeros((1, terms.shape[1]), dtype=terms.dtype, device=device(terms))])
    return xp.reshape(xp.take(padded, xp.reshape(slots, (-1,)), axis=0), (count, most, terms.shape[1]))


def _sum_slots(xp, terms, slots):
    return xp.sum(_in_slots(xp, terms, slots), axis=1)


def _double(xp, array):
    return xp.astype(array, xp.float64)


def _cholesky(xp, normal):
    """Cholesky factors of matrices (n, w, w), whose pivots are kept above their rounding errors."""
    width, least = normal.shape[1], 8 * xp.finfo(normal.dtype).eps
    places, rest, columns = xp.arange(width, device=device(normal)), normal, []
    for a in range(width):
        bound = least * normal[:, a, a]
        root = xp.sqrt(xp.where(rest[:, a, a] > bound, rest[:, a, a], bound))[:, None]
        below, here = (xp.astype(mask, normal.dtype) for mask in (places > a, places == a))
        column = below * rest[:, :, a] / root + here * root
        rest = rest - column[:, :, None] * column[:, None, :]
        columns.append(column)
    return xp.stack(columns, axis=2)
