"""A matrix known at every entry."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from dmf.arrays.backend import (
    as_array,
    device,
    floating,
    from_host,
    is_complex,
    is_numpy,
    is_sparse,
    kept,
    move,
    namespace,
    number,
    to_host,
)
from dmf.arrays.checks import random_generator
from dmf.arrays.linalg import conjugate_transpose, dense_svd, identity
from dmf.errors import ArgumentError
from dmf.io.forms import read_form
from dmf.observations.base import Observations, Ridge, half_square
from dmf.observations.checks import (
    check_finite,
    check_least_squares,
    check_rank,
    check_shape,
    check_two_dimensions,
    check_values,
    has_own_loss,
    held_out_count,
)
from dmf.observations.sampled import SampledEntries

_DESCENT_NUMBERS = 2**16


class FullMatrix(Observations):
    """Every entry of a matrix, possibly with noise.

    Parameters
    ----------
    matrix : array, data frame or DataArray as of `SampledEntries.from_dense`, shape (d1, d2)
        Finite numbers; float32 and float64 are kept, integers become float64. complex64 and complex128 are for
        `gradient_descent` and `spectral_network`.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, ObservationError
        If `matrix` is sparse, not two-dimensional, not numeric, or holds NaN or infinity.
    """

    def __init__(self, matrix: Any) -> None:
        if is_sparse(matrix):
            raise ArgumentError(
                "matrix is sparse, but every entry of it is needed. Pass matrix.toarray() if what is not stored is zero, or use "
                "dmf.complete if it is unknown.",
                argument="matrix",
                value=type(matrix).__name__,
                limit="array",
            )
        matrix, self.form = read_form(matrix)
        matrix = as_array(matrix, "matrix")
        check_two_dimensions(matrix)
        self.shape = check_shape(matrix.shape)
        self.matrix = kept(floating(matrix, "matrix", or_complex=True), matrix)
        check_finite(self.matrix, "matrix", "For a matrix with missing entries use SampledEntries.from_dense.")
        self.values = namespace(self.matrix).reshape(self.matrix, (-1,))

    def predict(self, left, right):
        return namespace(left).reshape(left @ right, (-1,))

    def adjoint(self, weights, left, right):
        dense = namespace(weights, left, right).reshape(weights, self.shape)
        return dense @ conjugate_transpose(right), conjugate_transpose(left) @ dense

    def evaluate(self, left, right):
        residual = left @ right - self.matrix
        return half_square(residual), residual @ conjugate_transpose(right), conjugate_transpose(left) @ residual

    def loss(self, left, right):
        return half_square(left @ right - self.matrix)

    @property
    def gain(self):
        return 1.0

    def ridge(self, side, factor, penalty, variances=None, start=None):
        """All rows share one normal matrix; penalties count as at least 8 w eps times the diagonal of the rest."""
        check_least_squares(self, FullMatrix, "ridge")
        xp = namespace(factor, penalty)
        matrix = self.matrix if side == 0 else xp.matrix_transpose(self.matrix)
        added = 0 * penalty if variances is None else xp.sum(variances, axis=0)
        moments = xp.matrix_transpose(factor) @ factor
        diagonal = xp.linalg.diagonal(moments) + added
        least = 8 * factor.shape[1] * float(xp.finfo(factor.dtype).eps) * diagonal
        penalised = diagonal + xp.where(penalty > least, penalty, least)
        scale = 1 / xp.sqrt(penalised)
        unit = identity(factor.shape[1], factor)
        normal = scale[:, None] * moments * scale * (1 - unit) + unit
        rows = scale * xp.matrix_transpose(xp.linalg.solve(normal, xp.matrix_transpose(matrix @ (factor * scale))))
        square = 2 * number(half_square(rows @ xp.matrix_transpose(factor) - matrix))
        if variances is None:
            return Ridge(rows, None, square, 0.0, 0.0)
        inverse = 1 / penalised
        squares, added, seen, spread = (
            to_host(a).astype(np.float64) for a in (xp.sum(rows * rows, axis=0), added, diagonal, inverse)
        )
        n = self.shape[side]
        spreads = xp.broadcast_to(inverse, (n, factor.shape[1]))
        return Ridge(rows, spreads, square, float(squares @ added), n * float(seen @ spread))

    def descent(self, widths):
        """That of all entries as samples, which beats products of matrices as long as everything stays in the caches."""
        matrix = self.matrix
        if (
            not is_numpy(matrix)
            or is_complex(matrix)
            or matrix.size > _DESCENT_NUMBERS
            or has_own_loss(self, FullMatrix)
        ):
            return None
        return self._entries.descent(widths)

    @cached_property
    def _entries(self) -> SampledEntries:
        rows, cols = (from_host(part, self.matrix) for part in np.divmod(np.arange(self.matrix.size), self.shape[1]))
        return SampledEntries(rows, cols, self.values, self.shape)

    def _new(self):
        other = super()._new()
        vars(other).pop("_entries", None)
        return other

    def surrogate_svd(self, rank, seed=0, sweeps=12):
        return dense_svd(self.matrix, check_rank(rank, self.shape), seed)

    def split(self, fraction, seed=0):
        """Entries, as two `SampledEntries`."""
        d1, d2 = self.shape
        held = held_out_count(fraction, d1 * d2)
        order = random_generator(seed).permutation(d1 * d2)
        xp = namespace(self.matrix)

        def entries(index):
            rows, cols = (from_host(part, self.matrix) for part in np.divmod(np.sort(index), d2))
            values = xp.take(self.values, xp.asarray(rows * d2 + cols, device=device(self.matrix)))
            return SampledEntries(rows, cols, values, self.shape)

        return entries(order[held:]), entries(order[:held])

    def with_values(self, values):
        other = self._new()
        other.values = kept(check_values(self, values), values)
        other.matrix = namespace(values).reshape(other.values, self.shape)
        return other

    def _moved(self, device):
        return FullMatrix(move(self.matrix, device))

    def fill(self, matrix):
        return self.matrix
