"""General linear measurements: matrix sensing."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from dmf.arrays.backend import (
    Array,
    device,
    from_host,
    frozen,
    is_numpy,
    is_sparse,
    kept,
    move,
    namespace,
    number,
)
from dmf.arrays.checks import random_generator
from dmf.arrays.linalg import conjugate_gradient, conjugate_transpose, dense_svd, gaussian
from dmf.arrays.threads import one_blas_thread
from dmf.errors import BackendError, ShapeError
from dmf.observations.base import Observations, Ridge, half_square
from dmf.observations.checks import (
    check_factors,
    check_least_squares,
    check_measurements,
    check_rank,
    check_shape,
    check_values,
    held_out_count,
)
from dmf.observations.operators import DenseOperator, FlatOperator, check_adjoint, is_flat

_PROBES = 4
# The design of a regression may hold this share of the numbers of an array operator, or so many.
_DESIGN_SHARE, _DESIGN_NUMBERS = 0.5, 2**20
_TOLERANCE, _STEPS, _MORE_STEPS = 1e-14, 200, 8  # of its conjugate gradients; a solver that gives a start comes back


class LinearMeasurements(Observations):
    """Inner products ``y_i = <A_i, X>``, or any linear map with an adjoint.

    Parameters
    ----------
    operator : array of shape (m, d1, d2), object with ``forward`` and ``adjoint``, or SciPy operator or sparse matrix
        ``forward(X)`` maps (d1, d2) to (m,), ``adjoint(z)`` maps (m,) to (d1, d2), both linear; for example a
        `SubsampledTransform`. A `scipy.sparse.linalg.LinearOperator` and a SciPy sparse matrix have shape (m, d1 * d2) and act
        on matrices flattened row by row. That operators are adjoint to each other is checked once with random arguments.
        An array is kept, not copied, and read once for each evaluation: leave it as it is. It may be complex, as the values
        then are: ``y_i = sum conj(A_i) X``, for `gradient_descent` and `spectral_network`.
    values : array, shape (m,)
        The measurements y; finite; integers become float64.
    shape : (int, int), optional
        (d1, d2); needed for SciPy's operators and for an object without an attribute ``shape`` (d1, d2), and must agree where
        both are given.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError, ArgumentError
        If shapes, dtypes or array libraries do not fit, numbers are not finite, or ``adjoint`` is not the adjoint.
    """

    def __init__(self, operator: Any, values: Array, shape: tuple[int, int] | None = None) -> None:
        self.values = check_measurements(
            values, "Leave failed measurements out, here and in the operator.", or_complex=True
        )
        if hasattr(operator, "forward") and hasattr(operator, "adjoint"):
            known = getattr(operator, "shape", None)
        elif is_sparse(operator) or is_flat(operator):
            operator = FlatOperator(operator, self.values, shape)
            known = operator.shape
        else:
            operator = DenseOperator(operator, self.values)
            known = operator.shape
        if known is None and shape is None:
            raise ShapeError(
                "shape is missing, and the operator has no attribute shape. Pass shape=(rows, columns).",
                argument="shape",
            )
        self.shape = check_shape(known if shape is None else shape)
        if known is not None and tuple(known) != self.shape:
            raise ShapeError(
                f"shape={self.shape}, but the operator measures {tuple(known)} matrices. Pass one of them, or correct it.",
                argument="shape",
                value=self.shape,
                limit=tuple(known),
            )
        self.operator = operator
        self._selected = None
        if not isinstance(operator, DenseOperator):
            check_adjoint(operator, self.shape, self.values)

    def threads(self):
        return one_blas_thread() if is_numpy(self.values) and self._is_array() else super().threads()

    def predict(self, left, right):
        return self._select(self.operator.forward(left @ right))

    def adjoint(self, weights, left, right):
        namespace(weights, left, right)
        dense = self.operator.adjoint(self._expand(weights))
        return dense @ conjugate_transpose(right), conjugate_transpose(left) @ dense

    def evaluate(self, left, right):
        if not self._is_array():
            return super().evaluate(left, right)
        check_factors(self, left, right)
        namespace(self.values, left, right)
        selected = None if self._selected is None else self._selected[2]
        loss, dense = self.operator.evaluate(left @ right, self.values, selected)
        return loss, dense @ conjugate_transpose(right), conjugate_transpose(left) @ dense

    @cached_property
    def gain(self):
        """Estimated from the images of `_PROBES` Gaussian matrices."""
        images = [
            self._select(self.operator.forward(gaussian(self.shape, seed, self.values))) for seed in range(_PROBES)
        ]
        square = sum(2 * number(half_square(image)) for image in images) / _PROBES
        return square / (self.shape[0] * self.shape[1])

    def ridge(self, side, factor, penalty, variances=None, start=None):
        check_least_squares(self, LinearMeasurements, "ridge")
        design = self._design(right=factor) if side == 0 else self._design(left=factor)
        if design is None:
            return super().ridge(side, factor, penalty, None, start)
        xp = namespace(self.values, factor)
        # The posterior is taken to factorise over all entries, and an uncertain factor to add the same to each of them.
        added = 0 * penalty if variances is None else self.gain * xp.sum(variances, axis=0)
        diagonal = xp.reshape(xp.sum(design * design, axis=0), (self.shape[side], -1))
        ridge = xp.reshape(xp.broadcast_to(penalty + added, diagonal.shape), (-1,))
        scale = 1 / xp.sqrt(xp.reshape(diagonal, (-1,)) + ridge)
        flat = scale * conjugate_gradient(
            lambda x: scale * ((design @ (scale * x)) @ design + ridge * (scale * x)),
            scale * (self.values @ design),
            None if start is None else xp.reshape(start, (-1,)) / scale,
            _TOLERANCE,
            _STEPS if start is None else _MORE_STEPS,
        )
        rows = xp.reshape(flat, diagonal.shape)
        square = 2 * number(half_square(design @ flat - self.values))
        if variances is None:
            return Ridge(rows, None, square, 0.0, 0.0)
        spread = 1 / (diagonal + added + penalty)
        return Ridge(rows, spread, square, number(xp.sum(rows**2 * added)), number(xp.sum(spread * (diagonal + added))))

    def tangent_normal(self, u, vt):
        check_least_squares(self, LinearMeasurements, "tangent_normal")
        xp = namespace(self.values, u, vt)
        design = self._design(u, xp.matrix_transpose(vt))
        if design is None:
            return super().tangent_normal(u, vt)
        return lambda step: xp.reshape((design @ xp.reshape(step, (-1,))) @ design, step.shape)

    def _design(self, left=None, right=None):
        """Matrix (m, n w) of ``P, Q -> A(P right^T + left Q^T)``; None where passes over the operator take less memory."""
        if not self._is_array():
            return None
        unknowns = sum(f.shape[1] * n for f, n in zip((right, left), self.shape, strict=True) if f is not None)
        numbers = self.n_measurements * unknowns
        if numbers > max(_DESIGN_NUMBERS, _DESIGN_SHARE * self.n_measurements * self.shape[0] * self.shape[1]):
            return None
        return self.operator.restricted(None if self._selected is None else self._selected[2], left, right)

    def surrogate_svd(self, rank, seed=0, sweeps=12):
        """Of ``(1/m) sum_i y_i A_i``; for Gaussian measurements its expectation is X up to a factor."""
        dense = self.operator.adjoint(self._expand(self.values)) / self.n_measurements
        return dense_svd(dense, check_rank(rank, self.shape), seed)

    def split(self, fraction, seed=0):
        """Measurements; both parts use the same operator, so its array is not copied."""
        held = held_out_count(fraction, self.n_measurements)
        order = random_generator(seed).permutation(self.n_measurements)
        return self._subset(np.sort(order[held:])), self._subset(np.sort(order[:held]))

    def with_values(self, values):
        return self._with_values(kept(check_values(self, values), values))

    def _with_values(self, values):
        other = self._new()
        other.values = frozen(values)
        return other

    def _moved(self, device):
        if not isinstance(self.operator, DenseOperator):
            raise BackendError(
                f"the operator is a {type(self.operator).__name__}, which dmf cannot move to {device}. Build it there, and "
                "pass it with values from there.",
                argument="device",
                value=device,
                limit="array of shape (m, d1, d2)",
            )
        other = self._with_values(move(self.values, device))
        other.operator = self.operator.to_device(device)
        selected = self._selected
        other._selected = selected and (*selected[:2], *(move(index, device) for index in selected[2:]))
        return other

    def fill(self, matrix):
        """`matrix` itself: no entry was observed directly."""
        return matrix

    def _subset(self, index: np.ndarray) -> LinearMeasurements:
        other = self._with_values(namespace(self.values).take(self.values, from_host(index, self.values)))
        selected = index if self._selected is None else self._selected[0][index]
        total = self.n_measurements if self._selected is None else self._selected[1]
        slots = np.full(total, index.size)  # where each measurement of the operator finds its weight
        slots[selected] = np.arange(index.size)
        other._selected = selected, total, from_host(selected, self.values), from_host(slots, self.values)
        return other

    def _is_array(self):
        return isinstance(self.operator, DenseOperator)

    def _select(self, measurements):
        if self._selected is None:
            return measurements
        return namespace(measurements).take(measurements, self._selected[2])

    def _expand(self, weights):
        if self._selected is None:
            return weights
        xp = namespace(weights)
        padded = xp.concat([weights, xp.zeros((1,), dtype=weights.dtype, device=device(weights))])
        return xp.take(padded, self._selected[3])
