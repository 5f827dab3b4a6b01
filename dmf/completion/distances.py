"""Distances between points, completed: matrices of distances are of low rank after one transform of their entries.

    Euclidean, dimension k:    d_ij^2 = |x_i|^2 + |x_j|^2 - 2 x_i.x_j              rank k + 2
    hyperbolic, dimension k:   cosh(d_ij / R) = x_i0 x_j0 - x_i1 x_j1 - ...        rank k + 1, x_i on the hyperboloid

So holes are filled by `dmf.completion.complete`, points follow from eigenvectors, and are then moved to fit the distances
themselves, whose errors the transform had weighted by their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from dmf.arrays.checks import check_choice, check_option, positive_integer, random_generator
from dmf.completion.calls import complete
from dmf.errors import ArgumentError, ObservationError, RankError, ShapeError
from dmf.observations import SampledEntries
from dmf.observations.conversion import on_host
from dmf.solvers.outcomes import uninterrupted

GEOMETRIES = ("euclidean", "hyperbolic")
_FARTHEST = 100.0  # in units of R: the squares of greater hyperbolic cosines leave the range of solvers
_STEPS, _INNER = 100, 300  # most steps of the refinement, and most passes over the pairs in each, where it is iterative
_LEAST_DAMPING = 1e-12  # motions of the whole change no distance, so the normal matrix alone is singular
_STILL = 1e-5  # relative fall of the sum of squares in a step below which it ends
_TOUCHING = 1e-9  # distance, relative, below which points touch: the slope of their distance is lost in rounding
_EXACT = 1e-13  # residual, relative, that is rounding
_DENSE = 1500  # coordinates, up to which steps are solved for by elimination
_ROUNDS = 5  # of putting misplaced points elsewhere
_BETTER = 0.99  # times the residual: a round that lowers it to less is worth another
_MISPLACED, _CANDIDATES = 4.0, 500  # mean square of a point over the median of them; places that are tried


@dataclass(frozen=True, eq=False)
class Distances:
    """Points whose distances fit those observed.

    Attributes
    ----------
    points : float64 array, shape (n, k), hyperbolic (n, k + 1)
        Euclidean points with mean zero, or points of the hyperboloid ``x_0^2 - x_1^2 - ... = 1``, x_0 first. Determined up to
        a motion of the whole.
    geometry : {"euclidean", "hyperbolic"}
    radius : float
        R of the hyperbolic space, in the unit of the distances.
    residual : float
        Root mean square of observed less fitted distances, each counted by its weight.
    observations : SampledEntries
        The distances observed, without the diagonal.
    """

    points: np.ndarray
    geometry: str
    radius: float
    residual: float
    observations: SampledEntries

    def predict(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Distances of the points between pairs of positions, float64 array shaped as `rows`."""
        unit = self.radius if self.geometry == "hyperbolic" else 1.0
        return unit * _SPACES[self.geometry].between(self.points[np.asarray(rows)], self.points[np.asarray(cols)])

    def product(self) -> np.ndarray:
        """All distances of the points, float64 array (n, n)."""
        every = np.arange(len(self.points))
        return np.stack([self.predict(np.full_like(every, i), every) for i in every])

    def filled(self) -> Any:
        """All distances, observed ones kept (of those given both ways, the mean), float64 array (n, n).

        Data that came as a data frame or a DataArray come back as such, with nothing changed but the missing cells.
        """
        known = self.observations
        both = SampledEntries(
            *_both_ways(known), known.shape, None if known.weights is None else np.tile(known.weights, 2)
        )
        both.form = known.form
        return both.restored(self.product())


def complete_distances(
    data: Any, geometry: str = "euclidean", dimension: int = 2, *, radius: float = 1.0, seed: int = 0
) -> Distances:
    """Complete the distances between n points from some of them, and find the points.

    Parameters
    ----------
    data : array or data frame of shape (n, n), SampledEntries, or sparse matrix of SciPy
        Distances, at least 0; NaN in an array marks a missing one. One of (i, j) and (j, i) is enough, as distances are
        symmetric. The diagonal may be missing; it is 0. Weights of SampledEntries are those of squared errors.
    geometry : {"euclidean", "hyperbolic"}
        "hyperbolic" suits trees and hierarchies, in which the number of neighbours grows exponentially with the distance.
    dimension : int, 1 <= dimension < n
        k, of the space.
    radius : float, > 0
        R of the hyperbolic space, of curvature -1/R^2, in the unit of the distances: small ones suit trees. Try several, and
        compare residuals.
    seed : int
        Of the randomised singular value decomposition.

    Returns
    -------
    Distances
        ``filled()`` gives the matrix, ``points`` the coordinates. A point with no more than k distances is one of many fits.

    Raises
    ------
    ArgumentError, RankError, ShapeError, DTypeError, ObservationError
        If an argument is out of range, a distance is negative, or the pairs seen fall into parts without a distance between.

    References
    ----------
    .. [1] Young, Householder, Psychometrika 3 (1938) (points of Euclidean distances); Torgerson, Psychometrika 17 (1952).
    .. [2] Tabaghi, Dokmanic, KDD 2020 (arXiv 2006.14160) (hyperbolic distances: rank k + 1, projection on the hyperboloid).
    .. [3] Shimizu, Mukuta, Harada, ICLR 2021 (arXiv 2006.08210) (the Lorentz model in networks).
    """
    check_choice("geometry", geometry, GEOMETRIES)
    space, radius = _SPACES[geometry], float(check_option("radius", radius, strictly=True))
    given = _checked_distances(on_host(data))
    n, dimension = given.shape[0], positive_integer(dimension, "dimension")
    if dimension >= n:
        raise RankError(
            f"dimension={dimension}, but {n} points span at most {n - 1} dimensions. Pass dimension <= {n - 1}.",
            argument="dimension",
            value=dimension,
            limit=n - 1,
        )
    farthest = float(given.entries.max())
    if geometry == "hyperbolic" and farthest > _FARTHEST * radius:
        raise ArgumentError(
            f"radius={radius:g}, but the largest distance is {farthest:g}, whose hyperbolic cosine leaves the range of numbers. "
            f"Pass radius >= {farthest / _FARTHEST:g}.",
            argument="radius",
            value=radius,
            limit=farthest / _FARTHEST,
        )
    unit = (
        radius if geometry == "hyperbolic" else farthest or 1.0
    )  # squares of distances far from 1 leave the range of numbers
    known = given.with_values(given.values / unit)
    diagonal = np.arange(n, dtype=known.rows.dtype)
    rows, cols, distances = (
        np.concatenate([ends, rest])
        for ends, rest in zip(_both_ways(known), (diagonal, diagonal, np.zeros(n)), strict=True)
    )
    weights = None
    if known.weights is not None:
        weights = np.concatenate([np.tile(known.weights / known.weights.mean(), 2), np.ones(n)])
    squares = SampledEntries(rows, cols, space.transformed(distances), known.shape, weights)
    rank = min(dimension + space.extra_rank, n)
    recovery = uninterrupted(complete(squares, rank, offsets=False, seed=seed))
    points, residual = _refined(space, space.points(*recovery.factors(), dimension), known)
    for _ in range(_ROUNDS):
        moved, better = _refined(space, _replaced(space, points, known, seed), known)
        if not better < _BETTER * residual:
            break
        points, residual = moved, better
    points = points if geometry == "hyperbolic" else unit * (points - points.mean(axis=0))
    return Distances(points, geometry, radius, unit * residual, given)


def _both_ways(known: SampledEntries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of the pairs and, after these, of the same pairs turned round."""
    rows, cols = np.concatenate([known.rows, known.cols]), np.concatenate([known.cols, known.rows])
    return rows, cols, np.tile(known.entries, 2)


class _Euclidean:
    extra_rank = 2

    def transformed(self, distances):
        return distances**2

    def points(self, left: np.ndarray, right: np.ndarray, dimension: int) -> np.ndarray:
        """Classical scaling: the double-centred matrix of squares is -2 X X^T."""
        values, vectors = _eigen(left - left.mean(axis=0), right - right.mean(axis=1, keepdims=True))
        return _scaled(-values[:dimension] / 2, vectors[:, :dimension], dimension)

    def between(self, a, b):
        return np.hypot.reduce(np.abs(a - b), axis=-1)  # of any size, without squares

    def slopes(self, a, b):
        """Distances, and their derivatives by the coordinates of either point."""
        gap = a - b
        distance = np.linalg.norm(gap, axis=-1)
        slope = gap / np.maximum(distance, _TOUCHING * distance.max() + np.finfo(float).tiny)[:, None]
        return distance, slope, -slope

    def coordinates(self, points):
        return points

    def placed(self, coordinates):
        return coordinates


class _Hyperbolic:
    """Of radius 1."""

    extra_rank = 1

    def transformed(self, distances):
        return np.cosh(distances)

    def points(self, left: np.ndarray, right: np.ndarray, dimension: int) -> np.ndarray:
        """Of the matrix of cosines the positive eigenvalue is that of the x_0, and the negative ones of the others."""
        values, vectors = _eigen(left, right)
        return self.placed(_scaled(-values[:dimension], vectors[:, :dimension], dimension))

    def between(self, a, b):
        return 2 * np.arcsinh(np.sqrt(self._square(a, b)) / 2)

    def _square(self, a, b):
        """``2 (cosh d - 1)``, without the cancellation of a cosine near 1."""
        gap, sum_ = a[..., 1:] - b[..., 1:], a[..., 1:] + b[..., 1:]
        along = np.sum(gap * sum_, axis=-1) / (a[..., 0] + b[..., 0])
        return np.maximum(np.sum(gap**2, axis=-1) - along**2, 0.0)

    def slopes(self, a, b):
        square = self._square(a, b)
        half = np.sqrt(square) / 2
        sinh = np.maximum(2 * half * np.sqrt(1 + half**2), _TOUCHING)[:, None]
        first = b[:, :1] * a[:, 1:] / a[:, :1] - b[:, 1:]
        second = a[:, :1] * b[:, 1:] / b[:, :1] - a[:, 1:]
        return 2 * np.arcsinh(half), first / sinh, second / sinh

    def coordinates(self, points):
        return points[:, 1:]

    def placed(self, coordinates):
        """On the hyperboloid, above the given x_1, x_2, ..."""
        height = np.sqrt(1 + np.sum(coordinates**2, axis=1, keepdims=True))
        return np.concatenate([height, coordinates], axis=1)


_SPACES: dict[str, _Euclidean | _Hyperbolic] = {"euclidean": _Euclidean(), "hyperbolic": _Hyperbolic()}


def _eigen(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, and eigenvectors of the symmetric part of ``left @ right``, which is not formed."""
    basis, _ = np.linalg.qr(np.concatenate([left, right.T], axis=1))
    core = (basis.T @ left) @ (right @ basis)
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    return values, basis @ vectors


def _scaled(values: np.ndarray, vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Coordinates (n, dimension): vectors times roots of their values, zeros for negative ones and for those that lack."""
    coordinates = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.pad(coordinates, ((0, 0), (0, dimension - coordinates.shape[1])))


def _refined(space: Any, start: np.ndarray, known: SampledEntries) -> tuple[np.ndarray, float]:
    """Points that fit the distances best, by Levenberg-Marquardt steps from `start`, and their residual."""
    rows, cols, n = known.rows, known.cols, len(start)
    points, damping, dimension = start, 1e-6, space.coordinates(start).shape[1]
    weights = np.ones(rows.size) if known.weights is None else known.weights
    roots = np.sqrt(weights)
    index = np.arange(dimension)
    places = np.repeat(np.arange(rows.size), 2 * dimension)
    columns = np.concatenate([rows[:, None] * dimension + index, cols[:, None] * dimension + index], axis=1).ravel()

    def measured(points):
        distance, first, second = space.slopes(points[rows], points[cols])
        return known.values - roots * distance, (roots[:, None] * np.concatenate([first, second], axis=1)).ravel()

    residual, slopes = measured(points)
    square, total = residual @ residual, known.values @ known.values
    for _ in range(_STEPS):
        if square <= _EXACT**2 * total:
            break
        jacobian = scipy.sparse.csr_array((slopes, (places, columns)), (rows.size, n * dimension))
        step = _damped_step(jacobian, residual, damping)
        trial = space.placed(space.coordinates(points) + step.reshape(n, dimension))
        following = measured(trial)
        lower = following[0] @ following[0]
        if not lower < square:
            damping *= 10
            if damping > 1e6:
                break
            continue
        fall, damping = 1 - lower / square, max(damping / 5, _LEAST_DAMPING)
        points, (residual, slopes), square = trial, following, lower
        if fall < _STILL:
            break
    return points, float(np.sqrt(square / weights.sum()))


def _damped_step(jacobian: scipy.sparse.csr_array, residual: np.ndarray, damping: float) -> np.ndarray:
    """Least squares with a ridge of `damping` times the mean square of a column."""
    size = jacobian.shape[1]
    ridge = damping * np.sum(jacobian.data**2) / size
    if size > _DENSE:
        return scipy.sparse.linalg.lsmr(jacobian, residual, np.sqrt(ridge), atol=1e-8, btol=1e-8, maxiter=_INNER)[0]
    normal = (jacobian.T @ jacobian).toarray()
    normal[np.diag_indices(size)] += ridge
    return np.linalg.solve(normal, jacobian.T @ residual)


def _replaced(space: Any, points: np.ndarray, known: SampledEntries, seed: int) -> np.ndarray:
    """`points`, with those that fit badly put where the best of the others, or of a sample of them, would fit instead.

    A single point can be caught far from its place by the others between; no small step leads out.
    """
    n = len(points)
    ends, others, distances = _both_ways(known)
    weights = np.ones(ends.size) if known.weights is None else np.tile(known.weights, 2)
    squares = weights * (distances - space.between(points[ends], points[others])) ** 2
    means = np.bincount(ends, squares, n) / np.bincount(ends, weights, n)
    places = points[np.sort(random_generator(seed).permutation(n)[:_CANDIDATES])]
    moved = points.copy()
    for point in np.flatnonzero(means > _MISPLACED * np.median(means)):
        mine = ends == point
        costs = (distances[mine] - space.between(places[:, None], points[others[mine]])) ** 2 @ weights[mine]
        if costs.min() < squares[mine].sum():
            moved[point] = places[np.argmin(costs)]
    return moved


def _checked_distances(entries: SampledEntries) -> SampledEntries:
    """Pairs of different points with their distances; errors where they are no distances."""
    n, columns = entries.shape
    if n != columns or n < 2:
        raise ShapeError(
            f"data are of shape {entries.shape}, but distances between n >= 2 points are an n x n matrix.",
            argument="data",
            value=entries.shape,
        )
    rows, cols, values, weights = entries.rows, entries.cols, entries.entries, entries.weights
    wrong = np.flatnonzero((values < 0) | ((rows == cols) & (values != 0)))
    if wrong.size:
        first = int(wrong[0])
        raise ObservationError(
            f"the distance of points {rows[first]} and {cols[first]} is {values[first]:g} ({wrong.size} such), but distances are "
            "at least 0, and 0 from a point to itself. Correct or remove them.",
            argument="data",
            value=float(values[first]),
            limit=0,
        )
    pairs = rows != cols
    graph = scipy.sparse.coo_array((np.ones(int(pairs.sum())), (rows[pairs], cols[pairs])), (n, n))
    parts, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    if parts > 1:
        alone = int(np.flatnonzero(labels != labels[0])[0])
        raise ObservationError(
            f"the points fall into {parts} parts with no distance seen between (0 and {alone} are in different ones), so that "
            "those distances are anything. Add distances, or complete each part alone.",
            argument="data",
            value=int(parts),
            limit=1,
        )
    known = SampledEntries(rows[pairs], cols[pairs], values[pairs], (n, n), None if weights is None else weights[pairs])
    known.form = entries.form
    return known
