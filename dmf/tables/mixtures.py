"""Mixtures of Gaussians fitted to a table with holes, with covariances shrunk to one that all components share."""

from __future__ import annotations

import numpy as np

from dmf.tables.gaussian import Gaussians, Patterns, Rows

_SWEEPS = 15  # of EM at most; more of them fit the groups to single rows
_SETTLED = 1e-4  # relative change of the log-likelihood that ends it
_ROUNDS = 10  # of k-means
_FEW = {2: 20, 3: 30, 5: 50, 8: 200}  # components, and the fewest rows that they are tried on
_MANY, _LARGE = (5, 12, 30), 1_000  # components of tables of so many rows
_SHOWN = 0.9  # share of the variance in the eigenvectors in which rows are grouped


def component_counts(rows: float) -> tuple[int, ...]:
    """Numbers of components worth trying for a table of so many rows."""
    return tuple(c for c, least in _FEW.items() if rows >= least) if rows < _LARGE else _MANY


def fit_mixture(table: np.ndarray, weights: np.ndarray, start: Gaussians, components: int) -> Gaussians:
    """Mixture of Gaussians fitted by EM.

    Parameters
    ----------
    table : array, shape (n, d)
        NaN where nothing is observed.
    weights : array, shape (n,)
        How often each row counts.
    start : Gaussians
        One Gaussian fitted to the table. Means are shrunk to its mean (which counts as one row), the covariance that
        components share to its variances (as two rows), that of each component to the one they share (as 2 d rows).
    components : int

    Returns
    -------
    Gaussians

    References
    ----------
    .. [1] Ghahramani, Jordan, NIPS 1994 (mixtures fitted to incomplete data by EM).
    """
    filled = start.moments(table)[0]
    groups = _groups(filled, start, weights, components)
    model = _from_groups(filled, weights, groups, start, components)
    rows, last, d = Rows(table, Patterns.of(table), weights), -np.inf, table.shape[1]
    variances = np.diag(np.diagonal(start.covariances[0]))
    for _ in range(_SWEEPS):
        found = rows.sums(model)
        if found.likelihood - last < _SETTLED * abs(found.likelihood):
            break
        last, counts = found.likelihood, found.totals[:, None]
        means = (found.sums + counts * model.means + start.means[0]) / (counts + 1)
        move = means - model.means
        within = found.seconds + (counts * move - found.sums)[:, :, None] * move[:, None, :]
        within -= move[:, :, None] * found.sums[:, None, :]
        shared = (within.sum(axis=0) + 2 * variances) / (weights.sum() + 2)
        covariances = (within + 2 * d * shared) / (counts[:, :, None] + 2 * d)
        model = Gaussians((found.totals + 1) / (weights.sum() + components), means, covariances)
    return model


def _groups(filled: np.ndarray, start: Gaussians, weights: np.ndarray, components: int) -> np.ndarray:
    """Group of each row: k-means in the leading eigenvectors of the covariance.

    It starts from one group. The one with the largest variance along a line is cut at its mean, again and again, so that the
    result depends on the rows alone (Su and Dy, Intelligent Data Analysis 2007).
    """
    values, vectors = np.linalg.eigh(start.covariances[0])
    share = np.cumsum(values[::-1]) / values.sum()
    leading = vectors[:, ::-1][:, : max(int(np.searchsorted(share, _SHOWN)) + 1, 1)]
    points = (filled - start.means[0]) @ leading
    groups = np.zeros(len(points), int)
    cuts = {0: _cut(points, weights)}
    for count in range(1, components):
        widest = max(cuts, key=lambda group: cuts[group][0])
        groups[(groups == widest) & (cuts[widest][1] > 0)] = count
        for changed in (widest, count):
            cuts[changed] = _cut(points, weights * (groups == changed))
    for _ in range(_ROUNDS):
        member = np.eye(components)[groups] * weights[:, None]
        counts = member.sum(axis=0)[:, None]
        centers = member.T @ points / np.maximum(counts, 1e-300)
        distances = np.where(counts[:, 0] > 0, np.sum(centers**2, axis=1) - 2 * points @ centers.T, np.inf)
        groups = np.argmin(distances, axis=1)
    return groups


def _cut(points: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Scatter of weighted points along the line of their largest variance, and where each lies on it from their mean."""
    off = points - weights @ points / max(weights.sum(), 1e-300)
    values, vectors = np.linalg.eigh((off * weights[:, None]).T @ off)
    return float(values[-1]), off @ vectors[:, -1]


def _from_groups(
    filled: np.ndarray, weights: np.ndarray, groups: np.ndarray, start: Gaussians, components: int
) -> Gaussians:
    d, overall = filled.shape[1], start.covariances[0]
    shares, means, covariances = np.empty(components), np.empty((components, d)), np.empty((components, d, d))
    for c in range(components):
        rows = groups == c
        count = weights[rows].sum()
        shares[c] = (count + 1) / (weights.sum() + components)
        means[c] = (weights[rows] @ filled[rows] + start.means[0]) / (count + 1)
        off = filled[rows] - means[c]
        covariances[c] = ((off * weights[rows, None]).T @ off + 2 * d * overall) / (count + 2 * d)
    return Gaussians(shares, means, covariances)
