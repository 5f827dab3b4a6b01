"""Linear maps from matrices to measurements: dense arrays, and what SciPy knows as a matrix or an operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.arrays.backend import (
    Array,
    as_array,
    floating,
    is_complex,
    is_numpy,
    is_sparse,
    move,
    namespace,
    number,
    real_dtype,
    to_host,
)
from dmf.arrays.linalg import gaussian
from dmf.errors import ArgumentError, BackendError, DTypeError, ObservationError, ShapeError
from dmf.kernels import kernel
from dmf.observations.base import half_square
from dmf.observations.checks import check_finite, check_shape

_CHECKED_NUMBERS = 2**18  # at once, so that the check for NaN needs little memory


class DenseOperator:
    """Inner products with the slices of an array of shape (m, d1, d2)."""

    def __init__(self, matrices: Any, values: Array) -> None:
        matrices = floating(as_array(matrices, "operator"), "operator", or_complex=True)
        if matrices.ndim != 3 or matrices.shape[0] != values.shape[0]:
            raise ShapeError(
                f"operator has shape {tuple(matrices.shape)} and values has shape {tuple(values.shape)}, but m "
                "measurements of d1 x d2 matrices are an array (m, d1, d2) and a vector (m,).",
                argument="operator",
                value=tuple(matrices.shape),
                limit=(values.shape[0], "d1", "d2"),
            )
        xp = namespace(matrices, values)
        check_same_dtype(matrices, values)
        self.shape = check_shape(matrices.shape[1:])
        size = self.shape[0] * self.shape[1]
        self._take(xp.reshape(matrices, (-1, size)))
        step = max(1, _CHECKED_NUMBERS // size)
        for first in range(0, matrices.shape[0], step):
            end = min(first + step, matrices.shape[0])
            check_finite(self._flat[first:end, :], f"operator (from measurement {first} on)")

    def _take(self, flat: Array) -> None:
        """The matrices, one in each row, and the kernels of their library."""
        self._flat = flat
        self._residual, self._restricted = kernel("dense_residual", flat), kernel("restricted_map", flat)

    def to_device(self, device: str) -> DenseOperator:
        """The same matrices on another device, unchecked."""
        other = DenseOperator.__new__(DenseOperator)
        other.shape = self.shape
        other._take(move(self._flat, device))
        return other

    def forward(self, matrix):
        xp = namespace(matrix)
        if is_complex(self._flat):
            return xp.conj(self._flat @ xp.conj(xp.reshape(matrix, (-1,))))  # without a conjugate copy of all matrices
        return self._flat @ xp.reshape(matrix, (-1,))

    def adjoint(self, weights):
        return namespace(weights).reshape(weights @ self._flat, self.shape)

    def restricted(self, selected, left=None, right=None):
        """Matrix (m, n w) of the map ``P, Q -> A(P right^T + left Q^T)``; a part is missing where its factor is None."""
        return self._restricted(self._flat, selected, self.shape, left, right)

    def evaluate(self, matrix, values, selected):
        """Loss and ``A^T(A(matrix) - values)``, of real numbers in one pass over A; `selected`: which rows measure, None: all."""
        if is_complex(self._flat):
            xp = namespace(values)
            flat = self._flat if selected is None else xp.take(self._flat, selected, axis=0)
            residual = xp.conj(flat @ xp.conj(xp.reshape(matrix, (-1,)))) - values
            return half_square(residual), xp.reshape(residual @ flat, self.shape)
        loss, gradient = self._residual(self._flat, selected, values, namespace(matrix).reshape(matrix, (-1,)))
        return loss, namespace(matrix).reshape(gradient, self.shape)


def is_flat(operator: Any) -> bool:
    """Whether this is a SciPy ``LinearOperator``."""
    from scipy.sparse.linalg import LinearOperator  # here: the import takes a tenth of a second

    return isinstance(operator, LinearOperator)


class FlatOperator:
    """What acts on matrices flattened row by row: a SciPy `LinearOperator` or sparse matrix of shape (m, d1 * d2)."""

    def __init__(self, operator: Any, values: Array, shape: tuple[int, int] | None) -> None:
        kind = type(operator).__name__
        if not is_numpy(values):
            raise BackendError(
                f"operator is a SciPy {kind} and values a {type(values).__module__}.{type(values).__name__}, but SciPy's "
                "operators act on NumPy arrays. Convert the values with numpy.asarray, or pass an object with forward and "
                "adjoint.",
                argument="operator",
                value=kind,
                limit="numpy.ndarray",
            )
        if shape is None:
            raise ShapeError(
                f"shape is missing, but the {kind} of shape {tuple(operator.shape)} acts on flattened matrices. Pass "
                "shape=(rows, columns), with as many entries as it has columns.",
                argument="shape",
            )
        self.shape = check_shape(shape)
        expected = values.shape[0], self.shape[0] * self.shape[1]
        if tuple(operator.shape) != expected:
            raise ShapeError(
                f"operator has shape {tuple(operator.shape)}, but {expected[0]} measurements of {self.shape[0]} x "
                f"{self.shape[1]} matrices, flattened row by row, need shape {expected}.",
                argument="operator",
                value=tuple(operator.shape),
                limit=expected,
            )
        self._operator = _checked_sparse(operator, values) if is_sparse(operator) else operator

    def forward(self, matrix):
        """Measurements (m,) of a matrix (d1, d2)."""
        return self._operator @ matrix.reshape(-1)

    def adjoint(self, weights):
        """``A^T weights`` as a matrix (d1, d2)."""
        if is_sparse(self._operator):
            return (self._operator.T @ weights).reshape(self.shape)
        try:
            flat = self._operator.rmatvec(weights)
        except NotImplementedError as error:
            raise ArgumentError(
                f"operator, a {type(self._operator).__name__}, has no rmatvec, but gradients need the transposed map. "
                "Pass rmatvec= to LinearOperator, or define _rmatvec.",
                argument="operator",
                value=type(self._operator).__name__,
                limit="rmatvec",
            ) from error
        return flat.reshape(self.shape)


def _checked_sparse(operator: Any, values: np.ndarray) -> Any:
    """`operator` by rows, of finite numbers in the dtype of the values."""
    import scipy.sparse

    matrix = scipy.sparse.csr_array(operator)
    numbers = floating(matrix.data, "operator")
    check_same_dtype(numbers, values)
    check_finite(numbers, "operator")
    return scipy.sparse.csr_array((numbers, matrix.indices, matrix.indptr), shape=matrix.shape)


def check_same_dtype(numbers: Array, values: Array) -> None:
    """Raise DTypeError unless the numbers of an operator have the dtype of the measurements."""
    if numbers.dtype != values.dtype:
        raise DTypeError(
            f"operator has dtype {numbers.dtype} and values {values.dtype}, but one call computes in one dtype. "
            "Convert one of them.",
            argument="values",
            value=str(values.dtype),
            limit=str(numbers.dtype),
        )


def check_adjoint(operator: Any, shape: tuple[int, int], values: Array) -> None:
    """Raise unless ``<forward(X), z> = <X, adjoint(z)>`` for one random X and z, with the right shapes and dtype."""
    xp = namespace(values)
    matrix, weights = gaussian(shape, 1, values), gaussian((values.shape[0],), 2, values)
    results = []
    for name, argument, expected in (("forward", matrix, (values.shape[0],)), ("adjoint", weights, shape)):
        result = getattr(operator, name)(argument)
        results.append(result)
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
    image, back = results
    with np.errstate(over="ignore", invalid="ignore"):
        one, other = number(xp.sum(image * weights)), number(xp.sum(matrix * back))
    sizes = [float(np.linalg.norm(to_host(array))) for array in (image, weights, matrix, back)]
    scale = max(sizes[0] * sizes[1], sizes[2] * sizes[3])
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
