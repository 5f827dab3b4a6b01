"""Measurements by pairs of vectors: rank-one matrix sensing."""

from __future__ import annotations

import numpy as np

from dmf.arrays.backend import Array, as_array, floating, from_host, frozen, kept, move, namespace, number
from dmf.arrays.checks import random_generator
from dmf.arrays.linalg import truncated_svd
from dmf.errors import DTypeError, ShapeError
from dmf.observations.base import Observations, half_square
from dmf.observations.checks import (
    check_factors,
    check_finite,
    check_measurements,
    check_rank,
    check_shape,
    check_values,
    held_out_count,
)


class RankOneMeasurements(Observations):
    """Bilinear measurements ``y_i = a_i^T X b_i`` of a matrix X of shape (d1, d2).

    Everything is computed from the vectors, in O(m (d1 + d2) w) for factors of width w: no array of d1 d2 numbers, and none
    of m d1 d2, is ever formed.

    Parameters
    ----------
    a : array, shape (m, d1)
        One vector a_i in each row; finite; float32 and float64 are kept, integers become float64.
    b : array, shape (m, d2)
        One vector b_i in each row; in the library and dtype of `a`.
    values : array, shape (m,)
        The measurements y; finite; in the same library and dtype.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If shapes, dtypes or array libraries do not fit, or numbers are not finite.

    References
    ----------
    .. [1] Cai, Zhang: ROP: Matrix Recovery via Rank-One Projections. Annals of Statistics 43 (2015).
    .. [2] Zhong, Jain, Dhillon: Efficient Matrix Sensing Using Rank-1 Gaussian Measurements. ALT 2015. The surrogate.
    """

    def __init__(self, a: Array, b: Array, values: Array) -> None:
        self.values = check_measurements(values, "Leave failed measurements out, with their rows of a and b.")
        given = (a, "a"), (b, "b")
        self.a, self.b = (floating(as_array(v, name), name) for v, name in given)
        namespace(self.a, self.b, self.values)
        count = self.values.shape[0]
        for vectors, name, size in ((self.a, "a", "d1"), (self.b, "b", "d2")):
            if vectors.ndim != 2 or vectors.shape[0] != count:
                raise ShapeError(
                    f"{name} has shape {tuple(vectors.shape)}, but {count} values are measured by as many vectors. Pass "
                    f"{name} with shape ({count}, {size}), one vector in each row.",
                    argument=name,
                    value=tuple(vectors.shape),
                    limit=(count, size),
                )
            if vectors.dtype != self.values.dtype:
                raise DTypeError(
                    f"{name} has dtype {vectors.dtype} and values {self.values.dtype}, but one call computes in one dtype. "
                    "Convert one of them.",
                    argument=name,
                    value=str(vectors.dtype),
                    limit=str(self.values.dtype),
                )
            check_finite(vectors, name)
        self.a, self.b = kept(self.a, a), kept(self.b, b)
        self.shape = check_shape((self.a.shape[1], self.b.shape[1]))

    def predict(self, left, right):
        return namespace(left, right).sum(self._left(left, right) * self._right(right), axis=1)

    def adjoint(self, weights, left, right):
        return self._products(check_values(self, weights), self._left(left, right), self._right(right))

    def evaluate(self, left, right):
        by_left, by_right = self._left(left, right), self._right(right)
        residual = namespace(left, right).sum(by_left * by_right, axis=1) - self.values
        return half_square(residual), *self._products(residual, by_left, by_right)

    @property
    def gain(self):
        xp = namespace(self.values)
        return number(xp.sum(xp.sum(self.a**2, axis=1) * xp.sum(self.b**2, axis=1))) / (self.shape[0] * self.shape[1])

    def surrogate_svd(self, rank, seed=0, sweeps=12):
        """Of ``(1/m) sum_i y_i a_i b_i^T``; its expectation is X if all entries of a and b are independent, of variance 1."""
        rank = check_rank(rank, self.shape)
        xp = namespace(self.values)
        weights = self.values[:, None] / self.n_measurements
        return truncated_svd(
            lambda block: xp.matrix_transpose(self.a) @ (weights * (self.b @ block)),
            lambda block: xp.matrix_transpose(self.b) @ (weights * (self.a @ block)),
            self.shape,
            rank,
            like=self.values,
            seed=seed,
            sweeps=sweeps,
        )

    def split(self, fraction, seed=0):
        held = held_out_count(fraction, self.n_measurements)
        order = random_generator(seed).permutation(self.n_measurements)
        return self._subset(np.sort(order[held:])), self._subset(np.sort(order[:held]))

    def with_values(self, values):
        return self._with(self.a, self.b, kept(check_values(self, values), values))

    def _moved(self, device):
        return self._with(*(move(v, device) for v in (self.a, self.b, self.values)))

    def fill(self, matrix):
        """`matrix` itself: no entry was observed directly."""
        return matrix

    def _subset(self, index: np.ndarray) -> RankOneMeasurements:
        xp, index = namespace(self.values), from_host(index, self.values)
        return self._with(*(xp.take(v, index, axis=0) for v in (self.a, self.b, self.values)))

    def _with(self, a, b, values):
        other = self._new()
        other.a, other.b, other.values = a, b, frozen(values)
        return other

    def _left(self, left, right):
        """``a_i^T left``, shape (m, w), after a check of both factors."""
        check_factors(self, left, right)
        return self.a @ left

    def _right(self, right):
        """``right b_i``, shape (m, w)."""
        return self.b @ namespace(right).matrix_transpose(right)

    def _products(self, weights, by_left, by_right):
        """``Z @ right^T`` and ``left^T @ Z`` of ``Z = sum_i weights_i a_i b_i^T``."""
        xp = namespace(weights, by_left, by_right)
        weights = weights[:, None]
        return xp.matrix_transpose(self.a) @ (weights * by_right), xp.matrix_transpose(weights * by_left) @ self.b
