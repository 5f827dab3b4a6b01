"""Entries of random low-rank matrices that determine them, with the error that can be reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import dmf
from dmf.recovery import Recovery


@dataclass(frozen=True)
class LowRankCase:
    """Entries of ``left @ right.T``, noise added."""

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    noise: float

    @property
    def matrix(self):
        return self.left @ self.right.T

    @property
    def observations(self):
        return dmf.SampledEntries(self.rows, self.cols, self.values, self.matrix.shape)

    def error(self, recovery):
        """Of a recovery, relative, in the Frobenius norm."""
        found = recovery if isinstance(recovery, Recovery) else getattr(recovery, "model", recovery)
        difference = np.asarray(found.product(), np.float64) - self.matrix
        return np.linalg.norm(difference) / np.linalg.norm(self.matrix)

    def oracle(self):
        """Root of the expected squared error, relative, of least squares in the true tangent space of rank-r matrices."""
        rank = self.left.shape[1]
        u, _, vt = np.linalg.svd(self.matrix)
        # Coordinates ``P V^T + U Q`` of the tangent space, P orthogonal to U.
        along = np.einsum("mi,mk->mik", u[self.rows, rank:], vt[:rank, self.cols].T).reshape(len(self.rows), -1)
        across = np.zeros((len(self.rows), rank, vt.shape[0]))
        across[np.arange(len(self.rows)), :, self.cols] = u[self.rows, :rank]
        singular_values = np.linalg.svd(np.hstack([along, across.reshape(len(self.rows), -1)]), compute_uv=False)
        return self.noise * np.sqrt(np.sum(singular_values**-2.0)) / np.linalg.norm(self.matrix)


def low_rank_case(seed, shape=(60, 60), rank=3, oversampling=3.0, condition=None, noise=0.0):
    """Random entries of a random matrix with entries of root mean square 1.

    `oversampling` measurements for each of the ``r (d1 + d2 - r)`` degrees of freedom, at most 90 % of all; drawn again until
    they determine the matrix among those near it: rows and columns may be too few. With a `condition`, the singular values
    are spaced evenly on a logarithmic scale.
    """
    rng = np.random.default_rng([seed, *shape, rank])
    left, right = (rng.standard_normal((size, rank)) for size in shape)
    if condition is not None:
        left = np.linalg.qr(left)[0] * np.logspace(0, -np.log10(condition), rank)
        right = np.linalg.qr(right)[0]
    left *= np.sqrt(shape[0] * shape[1]) / np.linalg.norm(left @ right.T)
    size = shape[0] * shape[1]
    count = min(round(oversampling * rank * (sum(shape) - rank)), int(0.9 * size))
    rows = cols = np.empty(0, int)
    while not rows.size or not determined(rows, cols, left, right):
        rows, cols = np.divmod(np.sort(rng.choice(size, count, replace=False)), shape[1])
    values = np.einsum("mk,mk->m", left[rows], right[cols]) + noise * rng.standard_normal(count)
    return LowRankCase(rows, cols, values, left, right, noise)


def determined(rows, cols, left, right):
    """Whether the derivative of the entries by the factors has full rank, to 1e-3 of its largest singular value."""
    (d1, rank), d2 = left.shape, right.shape[0]
    u, v = (factor / np.linalg.norm(factor, axis=0) for factor in (left, right))
    derivative = np.zeros((rows.size, d1 + d2, rank))
    samples = np.arange(rows.size)
    derivative[samples, rows] = v[cols] * np.sqrt(d2)
    derivative[samples, d1 + cols] = u[rows] * np.sqrt(d1)
    derivative = derivative.reshape(rows.size, -1)
    squares = np.linalg.eigvalsh(derivative.T @ derivative)
    return squares[rank * rank] > 1e-6 * squares[-1]  # the least rank^2 belong to changes of the factors alone
