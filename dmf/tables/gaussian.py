"""Gaussian distributions of the rows of a table, and mixtures of them: conditional moments, draws, and one EM step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PENALTIES = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
_SWEEPS = 12  # of EM for each penalty, from the covariance of the one before
_RELAXATION = 1.5  # of the step of the covariance; EM alone is slow where much is missing
_MEAN_WEIGHT = 0.1  # rows at the mean of the observed entries that the mean is shrunk to
_SETTLED = 1e-4  # change of the covariance, in units of the variances, that ends the sweeps of a penalty


@dataclass(frozen=True)
class Patterns:
    """Rows of a table ordered by their holes.

    Attributes
    ----------
    order : array of int, shape (n,)
    starts : array of int, shape (p + 1,)
    index : array of int, shape (p, d)
    missing : array of int, shape (p,)
        As `dmf.kernels.reference_rows.gaussian_rows` takes them.
    """

    order: np.ndarray
    starts: np.ndarray
    index: np.ndarray
    missing: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> Patterns:
        """Those of the NaN of a table."""
        holes = np.isnan(table)
        packed = np.packbits(holes, axis=1)
        codes = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True)[1].ravel()
        order = np.argsort(codes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        shapes = holes[order[starts[:-1]]]
        return cls(order, starts, np.argsort(~shapes, axis=1, kind="stable"), shapes.sum(axis=1))


@dataclass(frozen=True)
class Sums:
    """What an M-step needs of the rows: the first four of what `dmf.kernels.reference_rows.gaussian_rows` returns.

    Attributes
    ----------
    totals : array, shape (c,)
    sums : array, shape (c, d)
    seconds : array, shape (c, d, d)
        Sums of r times the second moment of the row about the mean, the conditional covariance included.
    likelihood : float
    """

    totals: np.ndarray
    sums: np.ndarray
    seconds: np.ndarray
    likelihood: float


@dataclass(frozen=True)
class Gaussians:
    """A mixture of Gaussian distributions; most often of one.

    Attributes
    ----------
    shares : array, shape (c,)
    means : array, shape (c, d)
    covariances : array, shape (c, d, d)
    """

    shares: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def moments(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each cell given the observed ones of its row: those themselves, with variance 0.

        Parameters
        ----------
        table : array, shape (n, d)
            NaN where nothing is observed.
        """
        return Rows(table, Patterns.of(table), np.ones(len(table))).run(self, learn=False)[4:]

    def draw(self, table: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The table with its holes filled by a draw from their conditional distribution."""
        result, patterns = np.array(table), Patterns.of(table)
        noise = generator.standard_normal(table.shape)
        for p, holes in enumerate(patterns.missing):
            rows = patterns.order[patterns.starts[p] : patterns.starts[p + 1]]
            out, seen = patterns.index[p, :holes], patterns.index[p, holes:]
            means, roots, logs = [], [], []
            for share, mean, covariance in zip(self.shares, self.means, self.covariances, strict=True):
                known = covariance[np.ix_(seen, seen)]
                gain = np.linalg.solve(known, covariance[np.ix_(seen, out)]).T
                off = table[np.ix_(rows, seen)] - mean[seen]
                means.append(mean[out] + off @ gain.T)
                rest = covariance[np.ix_(out, out)] - gain @ covariance[np.ix_(seen, out)]
                roots.append(_root(rest))
                squares = np.sum(np.linalg.solve(known, off.T).T * off, axis=1)
                logs.append(2 * np.log(share) - np.linalg.slogdet(known)[1] - squares)
            parts = np.array(logs).T / 2
            parts = np.exp(parts - parts.max(axis=1, keepdims=True))
            steps = np.cumsum(parts, axis=1) / parts.sum(axis=1, keepdims=True)
            chosen = np.minimum(np.sum(generator.random((len(rows), 1)) > steps, axis=1), len(self.shares) - 1)
            drawn = np.array(means)[chosen, np.arange(len(rows))]
            drawn += np.einsum("nab,nb->na", np.array(roots)[chosen], noise[np.ix_(rows, out)])
            result[np.ix_(rows, out)] = drawn
        return result

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds of them."""
        return {"shares": self.shares, "means": self.means, "covariances": self.covariances}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Gaussians:
        """The distributions that `arrays` came from."""
        return cls(arrays["shares"], arrays["means"], arrays["covariances"])


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))


@dataclass(frozen=True)
class Rows:
    """A table as an E-step takes it.

    Attributes
    ----------
    table : array, shape (n, d)
        NaN where nothing is observed.
    patterns : Patterns
        Of the table.
    weights : array, shape (n,)
        How often each row counts.
    """

    table: np.ndarray
    patterns: Patterns
    weights: np.ndarray

    def run(self, model: Gaussians, *, learn: bool) -> tuple[Any, ...]:
        """What the kernel returns."""
        order, starts, index, missing = (
            getattr(self.patterns, name) for name in ("order", "starts", "index", "missing")
        )
        from dmf.kernels.gaussian_rows import gaussian_rows

        return gaussian_rows(
            self.table, order, starts, index, missing, self.weights, model.shares, model.means, model.covariances, learn
        )

    def sums(self, model: Gaussians) -> Sums:
        """E-step."""
        return Sums(*self.run(model, learn=True)[:4])


def one_gaussian(mean: np.ndarray, covariance: np.ndarray) -> Gaussians:
    """A mixture of one component."""
    return Gaussians(np.ones(1), mean[None], covariance[None])


def gaussian_step(
    mean: np.ndarray, covariance: np.ndarray, rows: Rows, penalty: float, relaxation: float = 1.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """One step of EM for a single Gaussian, whose likelihood is multiplied by an inverse Wishart prior about the identity.

    Parameters
    ----------
    mean : array, shape (d,)
    covariance : array, shape (d, d)
    rows : Rows
    penalty : float, >= 0
        Rows that the prior counts as.
    relaxation : float, >= 1
        The step of the covariance is this many times that of EM, if it stays positive definite.

    Returns
    -------
    mean, covariance : arrays
    likelihood : float
        Logarithm of that of the observed cells, before the step.
    """
    found = rows.sums(one_gaussian(mean, covariance))
    count, sums = found.totals[0], found.sums[0]
    move = (sums - _MEAN_WEIGHT * mean) / (count + _MEAN_WEIGHT)
    whole = found.seconds[0] + (count * move - sums)[:, None] * move - move[:, None] * sums
    whole.flat[:: len(mean) + 1] += penalty
    new = whole / (count + penalty)
    if relaxation > 1:
        further = covariance + relaxation * (new - covariance)
        try:
            np.linalg.cholesky(further)
            new = further
        except np.linalg.LinAlgError:
            pass
    return mean + move, new, found.likelihood


def gaussian_path(
    table: np.ndarray, weights: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> Iterator[tuple[float, Gaussians]]:
    """Gaussians fitted to a table by EM, with less and less shrinkage towards independent columns of variance 1.

    Parameters
    ----------
    table : array, shape (n, d)
        Columns in units of their standard deviations; NaN where nothing is observed.
    weights : array, shape (n,)
        How often each row counts.
    penalties : sequence of float
        Rows that the identity counts as, decreasing.

    Yields
    ------
    penalty : float
    model : Gaussians

    References
    ----------
    .. [1] Little, Rubin, Statistical Analysis with Missing Data, chapter 11 (EM for the normal distribution).
    """
    rows = Rows(table, Patterns.of(table), weights)
    mean, covariance = np.zeros(table.shape[1]), np.eye(table.shape[1])
    for penalty in penalties:
        for _ in range(_SWEEPS):
            before = covariance
            mean, covariance, _ = gaussian_step(mean, covariance, rows, penalty, _RELAXATION)
            if np.abs(covariance - before).max() < _SETTLED:
                break
        yield penalty, one_gaussian(mean, covariance)
