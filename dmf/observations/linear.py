"""General linear measurements: matrix sensing."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.backend import Array, as_array, device, floating, from_host, namespace, number, real_dtype, to_host
from dmf.errors import ArgumentError, DTypeError, ObservationError, ShapeError
from dmf.linalg import dense_svd, gaussian
from dmf.observations.base import (
    Observations,
    check_finite,
    check_rank,
    check_shape,
    check_values,
    half_square,
    held_out_count,
)
from dmf.options import random_generator

_BLOCK_BYTES = 2**21  # of A: its rows are still in the cache when the residual comes back to them


class LinearMeasurements(Observations):
    """Inner products ``y_i = <A_i, X>``, or any linear map with an adjoint.

    Parameters
    ----------
    operator : array of shape (m, d1, d2), or object with ``forward`` and ``adjoint``
        ``forward(X)`` maps (d1, d2) to (m,), ``adjoint(z)`` maps (m,) to (d1, d2), both linear. That they are adjoint to each
        other is checked once with random arguments. An array is streamed once for each evaluation, in blocks.
    values : array, shape (m,)
        The measurements y; finite; integers become float64.
    shape : (int, int), optional
        (d1, d2); needed when `operator` is an object without an attribute ``shape`` (d1, d2), and must agree where both
        are given.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError, ArgumentError
        If shapes, dtypes or array libraries do not fit, numbers are not finite, or ``adjoint`` is not the adjoint.
    """

    def __init__(self, operator: Any, values: Array, shape: tuple[int, int] | None = None) -> None:
        self.values = floating(as_array(values, "values"), "values")
        if self.values.ndim != 1 or self.values.shape[0] == 0:
            raise ShapeError(
                f"values has shape {tuple(self.values.shape)}, but the measurements are a vector of at least 1 number.",
                argument="values",
                value=tuple(self.values.shape),
            )
        check_finite(self.values, "values", "Leave failed measurements out, here and in the operator.")
        if hasattr(operator, "forward") and hasattr(operator, "adjoint"):
            known = getattr(operator, "shape", None)
        else:
            operator = _DenseOperator(operator, self.values)
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
        if not isinstance(operator, _DenseOperator):
            _check_adjoint(operator, self.shape, self.values)

    def predict(self, left, right):
        return self._select(self.operator.forward(left @ right))

    def adjoint(self, weights, left, right):
        xp = namespace(weights, left, right)
        dense = self.operator.adjoint(self._expand(weights))
        return dense @ xp.matrix_transpose(right), xp.matrix_transpose(left) @ dense

    def evaluate(self, left, right):
        if not isinstance(self.operator, _DenseOperator):
            return super().evaluate(left, right)
        xp = namespace(left, right)
        selected = None if self._selected is None else self._expand(xp.ones_like(self.values))
        loss, dense = self.operator.evaluate(left @ right, self._expand(self.values), selected)
        return loss, dense @ xp.matrix_transpose(right), xp.matrix_transpose(left) @ dense

    def surrogate_svd(self, rank, seed=0):
        """Of ``(1/m) sum_i y_i A_i``; for Gaussian measurements its expectation is X up to a factor."""
        dense = self.operator.adjoint(self._expand(self.values)) / self.n_measurements
        return dense_svd(dense, check_rank(rank, self.shape), seed)

    def split(self, fraction, seed=0):
        """Measurements; both parts use the same operator, so its array is not copied."""
        held = held_out_count(fraction, self.n_measurements)
        order = random_generator(seed).permutation(self.n_measurements)
        return self._subset(np.sort(order[held:])), self._subset(np.sort(order[:held]))

    def with_values(self, values):
        return self._with_values(check_values(self, values))

    def _with_values(self, values):
        other = LinearMeasurements.__new__(LinearMeasurements)
        other.operator, other.shape, other.values, other._selected = self.operator, self.shape, values, self._selected
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


class _DenseOperator:
    """Inner products with the slices of an array of shape (m, d1, d2)."""

    def __init__(self, matrices: Any, values: Array) -> None:
        matrices = floating(as_array(matrices, "operator"), "operator")
        if matrices.ndim != 3 or matrices.shape[0] != values.shape[0]:
            raise ShapeError(
                f"operator has shape {tuple(matrices.shape)} and values has shape {tuple(values.shape)}, but m "
                "measurements of d1 x d2 matrices are an array (m, d1, d2) and a vector (m,).",
                argument="operator",
                value=tuple(matrices.shape),
                limit=(values.shape[0], "d1", "d2"),
            )
        xp = namespace(matrices, values)
        if matrices.dtype != values.dtype:
            raise DTypeError(
                f"operator has dtype {matrices.dtype} and values {values.dtype}, but one call computes in one dtype. "
                "Convert one of them.",
                argument="values",
                value=str(values.dtype),
                limit=str(matrices.dtype),
            )
        self.shape = check_shape(matrices.shape[1:])
        size = self.shape[0] * self.shape[1]
        self._flat = xp.reshape(matrices, (-1, size))
        self._step = max(1, _BLOCK_BYTES // (size * xp.finfo(matrices.dtype).bits // 8))
        for first, end in self._blocks():
            check_finite(self._flat[first:end, :], f"operator (from measurement {first} on)")

    def _blocks(self):
        """First and end of each block of measurements."""
        count = self._flat.shape[0]
        return [(first, min(first + self._step, count)) for first in range(0, count, self._step)]

    def forward(self, matrix):
        return self._flat @ namespace(matrix).reshape(matrix, (-1,))

    def adjoint(self, weights):
        return namespace(weights).reshape(weights @ self._flat, self.shape)

    def evaluate(self, matrix, values, selected=None):
        """Loss and ``A^T(A(matrix) - values)``, each block of A read from memory once; `selected`: 1 or 0 for each."""
        xp = namespace(matrix, values)
        flat = xp.reshape(matrix, (-1,))
        gradient = xp.zeros_like(flat)
        loss = xp.zeros((), dtype=xp.float64, device=device(values))
        for first, end in self._blocks():
            block = self._flat[first:end, :]
            residual = block @ flat - values[first:end]
            if selected is not None:
                residual = residual * selected[first:end]
            gradient = gradient + residual @ block
            loss = loss + half_square(residual)
        return loss, xp.reshape(gradient, self.shape)


def _check_adjoint(operator: Any, shape: tuple[int, int], values: Array) -> None:
    """Raise unless ``<forward(X), z> = <X, adjoint(z)>`` for one random X and z, with the right shapes and dtype."""
    xp = namespace(values)
    matrix, weights = gaussian(shape, 1, values), gaussian((values.shape[0],), 2, values)
    image, back = operator.forward(matrix), operator.adjoint(weights)
    for name, result, expected in (("forward", image, (values.shape[0],)), ("adjoint", back, shape)):
        if tuple(getattr(result, "shape", ())) != expected:
            raise ShapeError(
                f"operator.{name} returned an array of shape {tuple(getattr(result, 'shape', ()))}, but {expected} was "
                f"expected for {values.shape[0]} measurements of {shape[0]} x {shape[1]} matrices.",
                argument="operator",
                value=tuple(getattr(result, "shape", ())),
                limit=expected,
            )
        namespace(values, result)
        if real_dtype(result, f"operator.{name}(...)") != values.dtype:
            raise DTypeError(
                f"operator.{name} returned {result.dtype} for {values.dtype}, but a dtype must not change on the way.",
                argument="operator",
                value=str(result.dtype),
                limit=str(values.dtype),
            )
    with np.errstate(over="ignore", invalid="ignore"):
        one, other = number(xp.sum(image * weights)), number(xp.sum(matrix * back))
    scale = float(np.linalg.norm(to_host(image)) * np.linalg.norm(to_host(weights)))
    if not np.isfinite(one) or not np.isfinite(other):
        raise ObservationError("operator gives NaN or infinite numbers for finite ones.", argument="operator")
    if abs(one - other) > 1e3 * float(xp.finfo(values.dtype).eps) * scale:
        raise ArgumentError(
            f"<forward(X), z> = {one:.9g}, but <X, adjoint(z)> = {other:.9g} for random X and z, so gradients would be wrong. "
            "Correct operator.adjoint: it must be the transpose of operator.forward.",
            argument="operator",
            value=one - other,
            limit=0,
        )
