"""Low rank with a noise variance for each column, fitted by variational Bayes: the model of wide tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

RANKS = (1, 2, 3, 5, 8, 12, 20, 30)
_SWEEPS = 15  # for each rank, from the rows of the one before
_SETTLED = 1e-3  # relative change of the noise variances that ends them
_PRIOR_ROWS = 2.0  # that a noise variance is shrunk to the common one with
_LEAST_NOISE = 1e-4  # variance, of columns of variance 1
_CHUNK = 2_000_000  # numbers of the normal matrices of rows at a time


@dataclass(frozen=True)
class Factors:
    """Rows ``(1, x) @ loadings.T`` plus noise, x standard normal: a Gaussian whose covariance is of low rank plus a diagonal.

    Attributes
    ----------
    loadings : array, shape (d, r + 1)
        Means of the columns first.
    spread : array, shape (d, r + 1, r + 1)
        Posterior covariance of each row of `loadings`.
    noise : array, shape (d,)
        Variances.
    """

    loadings: np.ndarray
    spread: np.ndarray
    noise: np.ndarray

    def rows(self, known: np.ndarray, seen: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Rows, a chunk at a time: mean (n, r + 1) and covariance (n, r + 1, r + 1) of (1, x) given what is observed.

        `known` (n, d) has zeros where nothing is observed, `seen` too, and ones elsewhere.
        """
        width = self.loadings.shape[1]
        products = (self.loadings[:, :, None] * self.loadings[:, None, :] + self.spread) / self.noise[:, None, None]
        flat, scaled = products.reshape(len(products), -1), self.loadings / self.noise[:, None]
        step, one = max(_CHUNK // width**2, 1), np.eye(width - 1)
        for first in range(0, len(known), step):
            part = slice(first, first + step)
            normal = (seen[part] @ flat).reshape(-1, width, width)
            covariance = np.zeros_like(normal)
            covariance[:, 1:, 1:] = inverse = np.linalg.inv(normal[:, 1:, 1:] + one)
            mean = np.ones((len(normal), width))
            target = known[part] @ scaled[:, 1:] - normal[:, 1:, 0]
            mean[:, 1:] = (inverse @ target[:, :, None])[:, :, 0]
            yield part, mean, covariance

    def moments(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each cell given the observed ones of its row: those themselves, with variance 0.

        Parameters
        ----------
        table : array, shape (n, d)
            NaN where nothing is observed.
        """
        filled, variances = np.array(table), np.zeros_like(table)
        d, width = self.loadings.shape
        products = self.loadings[:, :, None] * self.loadings[:, None, :]
        for part, mean, covariance in self.rows(*_known(table)):
            holes = np.isnan(table[part])
            second = (covariance + mean[:, :, None] * mean[:, None, :]).reshape(-1, width**2)
            variance = covariance.reshape(-1, width**2) @ products.reshape(d, -1).T
            variance += second @ self.spread.reshape(d, -1).T + self.noise
            filled[part] = np.where(holes, mean @ self.loadings.T, table[part])
            variances[part] = np.where(holes, variance, 0)
        return filled, variances

    def draw(self, table: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The table with its holes filled by a draw from their conditional distribution."""
        result, noise = np.array(table), np.sqrt(self.noise)
        for part, mean, covariance in self.rows(*_known(table)):
            roots = np.zeros_like(covariance)
            roots[:, 1:, 1:] = np.linalg.cholesky(covariance[:, 1:, 1:])
            drawn = mean + np.einsum("nab,nb->na", roots, generator.standard_normal(mean.shape))
            values = drawn @ self.loadings.T + noise * generator.standard_normal(table[part].shape)
            result[part] = np.where(np.isnan(table[part]), values, table[part])
        return result

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds of them."""
        return {"loadings": self.loadings, "spread": self.spread, "noise": self.noise}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Factors:
        """The factors that `arrays` came from."""
        return cls(arrays["loadings"], arrays["spread"], arrays["noise"])


def low_rank_path(
    table: np.ndarray, weights: np.ndarray, ranks: Sequence[float] = RANKS
) -> Iterator[tuple[float, Factors]]:
    """Factors of rising rank fitted to a table.

    Parameters
    ----------
    table : array, shape (n, d)
        Columns in units of their standard deviations; NaN where nothing is observed.
    weights : array, shape (n,)
        How often each row counts.
    ranks : sequence of int
        Rising; those that the shape of the table does not allow are left out.

    Yields
    ------
    rank : float
    model : Factors

    References
    ----------
    .. [1] Lim, Teh, KDD Cup 2007 (variational Bayes for factor models); Ilin, Raiko, JMLR 2010 (with missing values).
    """
    n, d = table.shape
    data = _Data.of(table, weights)
    model = Factors(np.zeros((d, 1)), np.zeros((d, 1, 1)), np.ones(d))
    for rank in map(int, ranks):
        if rank >= min(n, d):
            return
        model = _widened(model, data, rank)
        scales = np.ones(rank + 1)
        for _ in range(_SWEEPS):
            before = model.noise
            model, scales = _sweep(model, data, scales)
            if np.max(np.abs(model.noise / before - 1)) < _SETTLED:
                break
        yield rank, model


def _known(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The table with zeros in its holes, and ones where it has none."""
    seen = ~np.isnan(table)
    return np.where(seen, table, 0), seen.astype(float)


@dataclass(frozen=True)
class _Data:
    """A table as sweeps need it: values and places observed (n, d), plain and times the weights, and sums of the latter."""

    known: np.ndarray
    seen: np.ndarray
    weighted: np.ndarray
    weighted_seen: np.ndarray
    weights: np.ndarray
    counts: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray, weights: np.ndarray) -> _Data:
        known, seen = _known(table)
        weighted, weighted_seen = known * weights[:, None], seen * weights[:, None]
        return cls(
            known, seen, weighted, weighted_seen, weights, weighted_seen.sum(axis=0), np.sum(weighted * known, axis=0)
        )


def _widened(model: Factors, data: _Data, rank: int) -> Factors:
    """With leading directions of what the model leaves of the observed cells, by power iteration from its largest rows."""
    d, width = model.loadings.shape
    rest = np.array(data.known)
    for part, mean, _ in model.rows(data.known, data.seen):
        rest[part] -= data.seen[part] * (mean @ model.loadings.T)
    rest *= np.sqrt(data.weights)[:, None] / np.sqrt(model.noise)
    count = rank + 1 - width
    largest = np.argsort(-np.sum(rest**2, axis=1), kind="stable")[: 2 * count + 4]
    basis = np.linalg.qr(rest[largest].T)[0]
    for _ in range(2):
        basis = np.linalg.qr(rest.T @ (rest @ basis))[0]
    left, s, _ = np.linalg.svd(basis.T @ (rest.T @ rest @ basis))
    added = basis @ left[:, :count] * np.sqrt(s[:count] / max(data.weights.sum(), 1))
    loadings = np.column_stack([model.loadings, added * np.sqrt(model.noise)[:, None]])
    spread = np.zeros((d, rank + 1, rank + 1))
    spread[:, :width, :width] = model.spread
    return replace(model, loadings=loadings, spread=spread)


def _sweep(model: Factors, data: _Data, scales: np.ndarray) -> tuple[Factors, np.ndarray]:
    """Rows, then loadings, noise and the prior variances of the loadings (`scales`)."""
    d, width = model.loadings.shape
    seconds, cross = np.zeros((d, width * width)), np.zeros((d, width))
    for part, mean, covariance in model.rows(data.known, data.seen):
        second = covariance + mean[:, :, None] * mean[:, None, :]
        seconds += data.weighted_seen[part].T @ second.reshape(len(second), -1)
        cross += data.weighted[part].T @ mean
    seconds = seconds.reshape(d, width, width)
    prior = np.diag(1 / scales)
    prior[0, 0] = 0.1
    spread = np.linalg.inv(seconds / model.noise[:, None, None] + prior)
    loadings = (spread @ cross[:, :, None])[:, :, 0] / model.noise[:, None]
    squared = loadings[:, :, None] * loadings[:, None, :] + spread
    rest = data.squares - 2 * np.sum(loadings * cross, axis=1) + np.sum(seconds * squared, axis=(1, 2))
    common = rest.sum() / data.counts.sum()
    noise = np.maximum((rest + 2 * _PRIOR_ROWS * common) / (data.counts + 2 * _PRIOR_ROWS), _LEAST_NOISE)
    scales = np.einsum("daa->a", squared) / d
    return Factors(loadings, spread, noise), np.maximum(scales, 1e-8)
