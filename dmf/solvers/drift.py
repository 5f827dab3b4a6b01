"""Drift of rows and columns, estimated from what a model leaves of entries.

Variances and scales of the two processes (see `dmf.models.drift`) are those that make the entries most likely, the same for all
rows, so that nothing is left to tune. Given these, the means of all effects solve one banded system.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from dmf.arrays.backend import from_host, frozen, host_dtype, namespace, to_host
from dmf.models.drift import LEAST_NEW, Drift, Path
from dmf.observations import SampledEntries

_HELD_OUT, _FEWEST = 0.1, 20  # share of the entries that decides, and the fewest that can
_STANDARD_ERRORS = 2.0  # by which these have to be predicted better
_FOLDS = 5  # parts of the entries, each of which gets effects that the others show
# Entries, about, that tell variances and scales: first, and where there are effects.
_FIRST_ENTRIES, _FINAL_ENTRIES = 15_000, 100_000
_AT_ONCE = 500_000  # points, about, in one banded system
_ITERATIONS, _TOLERANCE = 30, 2e-6  # of the search for the most likely variances and scales
_VARIANCES = 1e-6, 1e2  # where these are looked for, in units of the variance of the noise
_COUNTS = 1.0, 1e5  # the same of the scale in entries
_LONGEST_SCALE = 10.0  # of the process in time, over the longest time between two entries of a row
_ROUNDING = 1e-12  # share of the squares that rounding leaves
_FIRST_VARIANCE, _FIRST_COUNT = 0.05, 5.0  # where the search begins
_FIRST_TIMES = 0.1, 0.5, 0.9, 1.0  # the same in time: the best of these quantiles of the times between entries


def fit_drift(rest: SampledEntries, seed: int = 0) -> Drift | None:
    """Effects of time on what a model leaves of entries; None where none of them predicts held-out entries better.

    Parameters
    ----------
    rest : SampledEntries
        With times.
    seed : int
        Of the entries held out, and of those that variances and scales are estimated from.
    """
    if rest.n_distinct < _FEWEST / _HELD_OUT:
        return None
    rows = _fitted(rest, 0, seed)
    columns = _fitted(rest if rows is None else without_drift(rest, Drift(rows, None)), 1, seed)
    return None if rows is columns is None else Drift(rows, columns)


def refitted(drift: Drift, rest: SampledEntries, seed: int | None = None) -> Drift:
    """The effects on what another model leaves of the entries, or of some; of the same variances and scales without a seed."""
    rows, columns = None, None  # not those of the other values, some of which may be held out
    if drift.rows is not None:
        rows = _again(drift.rows, rest, 0, seed)
    if drift.columns is not None:
        columns = _again(drift.columns, rest if rows is None else without_drift(rest, Drift(rows, None)), 1, seed)
        rows = None if rows is None else _again(rows, without_drift(rest, Drift(None, columns)), 0, seed)
    return Drift(rows, columns)


def cross_fitted(drift: Drift, rest: SampledEntries, seed: int) -> np.ndarray:
    """Effects at entries (m,) as the others show them: taken away, they leave the noise of the entries as it is."""
    effects = np.zeros(rest.n_measurements)
    fold = np.random.default_rng(seed).integers(0, _FOLDS, effects.size)
    for k in range(_FOLDS):
        if (fold == k).any() and (fold != k).any():
            held = rest.chosen(fold == k)
            others = refitted(drift, rest.chosen(fold != k))
            effects[fold == k] = others.at(to_host(held.rows), to_host(held.cols), times_of(held))
    return effects


def without_drift(entries: SampledEntries, drift: Drift) -> SampledEntries:
    """The entries less what time adds to them."""
    return less(entries, drift.at(to_host(entries.rows), to_host(entries.cols), times_of(entries)))


def less(entries: SampledEntries, effects: np.ndarray) -> SampledEntries:
    """The entries less some numbers (m,)."""
    values = entries.entries - from_host(effects.astype(host_dtype(entries.values)), entries.values)
    return entries.with_values(
        frozen(values if entries.weights is None else namespace(values).sqrt(entries.weights) * values)
    )


def _fitted(rest: SampledEntries, side: int, seed: int) -> Path | None:
    """Effects of one side, if those of nine tenths of the entries predict the others better than none do."""
    kept, held = rest.split(_HELD_OUT, seed)
    points = _Points.of(kept, side)
    some = points.some(_FIRST_ENTRIES, seed)
    if not (np.diff(some.starts) > 1).any() or not some.squares.any():
        return None
    path = points.path(_most_likely(some))
    values, effects = _host(held.entries), path.at(to_host((held.rows, held.cols)[side]), times_of(held))
    better = _weights(held) * (values**2 - (values - effects) ** 2)
    if not np.mean(better) > _STANDARD_ERRORS * np.std(better) / math.sqrt(better.size):
        return None
    return _again(path, rest, side, seed)


def _again(path: Path, rest: SampledEntries, side: int, seed: int | None) -> Path:
    """Effects of one side on other values, of variances and scales that are most likely near those of `path`, or of these."""
    points, sizes = _Points.of(rest, side), path.sizes
    return points.path(sizes if seed is None else _most_likely(points.some(_FINAL_ENTRIES, seed), sizes))


def times_of(entries: SampledEntries) -> np.ndarray:
    """The times of entries that have some."""
    assert entries.times is not None
    return entries.times


def _host(array) -> np.ndarray:
    return to_host(array).astype(np.float64)


def _weights(entries: SampledEntries) -> np.ndarray:
    return np.ones(entries.n_measurements) if entries.weights is None else _host(entries.weights)


@dataclass(frozen=True, eq=False)
class _Points:
    """Points of time of all rows or columns: a `Path` without states, and what was measured there.

    Attributes
    ----------
    starts, times, counts
        See `Path`.
    weights, sums, squares : float64 arrays, shape (n,)
        Sums of weights, of weighted values and of weighted squares of values at each point.
    """

    starts: np.ndarray
    times: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, entries: SampledEntries, side: int) -> _Points:
        """Those of entries."""
        order = np.lexsort((times_of(entries), to_host((entries.rows, entries.cols)[side])))
        index, times = to_host((entries.rows, entries.cols)[side])[order], times_of(entries)[order]
        values, weights = _host(entries.entries)[order], _weights(entries)[order]
        at = np.flatnonzero(np.append(True, (np.diff(index) != 0) | (np.diff(times) != 0)))
        starts = np.searchsorted(index[at], np.arange(entries.shape[side] + 1))
        sums = (np.add.reduceat(weights * values**power, at) for power in (0, 1, 2))
        return cls(starts, times[at], np.diff(np.append(at, index.size)), *sums)

    @cached_property
    def gaps(self) -> np.ndarray:
        """Time, and number of entries, since the point before; infinite at the first of each row; float64, shape (2, n)."""
        between = (self.counts + np.append(0, self.counts[:-1])) / 2  # the middles of their entries
        with np.errstate(over="ignore"):  # no more is known beyond 1e308 than beyond any time
            gaps = np.stack([np.diff(self.times, prepend=self.times[0]), between])
        gaps[:, self.starts[:-1][np.diff(self.starts) > 0]] = np.inf
        return gaps

    def rows(self, chosen: np.ndarray) -> _Points:
        """The rows of a mask."""
        at = np.repeat(chosen, np.diff(self.starts))
        arrays = (array[at] for array in (self.times, self.counts, self.weights, self.sums, self.squares))
        return _Points(np.append(0, np.cumsum(np.diff(self.starts)[chosen])), *arrays)

    def some(self, most: int, seed: int) -> _Points:
        """Rows at random with about `most` entries, or all."""
        order = np.random.default_rng(seed).permutation(self.starts.size - 1)
        entries = np.diff(np.append(0, np.cumsum(self.counts))[self.starts])
        chosen = np.zeros(order.size, bool)
        chosen[order[: 1 + np.searchsorted(np.cumsum(entries[order]), most)]] = True
        return self.rows(chosen)

    def path(self, sizes: np.ndarray) -> Path:
        """Means of the effects for these variances and scales, see `Path.sizes`."""
        first = np.searchsorted(self.starts, np.arange(0, self.times.size, _AT_ONCE))
        rows, parts = np.arange(self.starts.size - 1), pairwise(np.unique(np.append(first, self.starts.size - 1)))
        states = [_posterior(self.rows((rows >= begin) & (rows < end)), sizes) for begin, end in parts]
        return Path(self.starts, self.times, self.counts, np.concatenate(states), sizes)


def _posterior(points: _Points, sizes: np.ndarray) -> np.ndarray:
    """Means of both processes, shape (n, 2)."""
    from scipy.linalg import solveh_banded  # here: the import takes time

    n = points.times.size
    with np.errstate(over="ignore"):
        new = np.maximum(
            -np.expm1(-2 * points.gaps / sizes[1][:, None]), LEAST_NEW
        )  # share of the variance at each point
    kept = np.sqrt(1 - new)
    band = np.zeros((3, n, 2))  # the upper triangle of the precision matrix, the two processes in turn
    following = np.append((kept**2 / new)[:, 1:], np.zeros((2, 1)), axis=1)
    band[2] = ((1 / new + following) / sizes[0][:, None]).T + points.weights[:, None]
    band[1, :, 1] = points.weights
    band[0, 1:] = -(kept / new / sizes[0][:, None]).T[1:]
    return solveh_banded(band.reshape(3, 2 * n), np.repeat(points.sums, 2), overwrite_ab=True).reshape(n, 2)


def _most_likely(points: _Points, start: np.ndarray | None = None) -> np.ndarray:
    """Variances and scales that make the values most likely, with the variance of the noise that goes with them."""
    from scipy.optimize import minimize

    from dmf.kernels.drift import filtered

    total, m = float(np.sum(points.squares)) or 1.0, int(np.sum(points.counts))
    between = points.gaps[0][np.isfinite(points.gaps[0])]
    units = np.array([[1.0, 1.0], [np.median(between), 1.0]])  # so that the search does not depend on that of times
    ends = np.array([between.min(), _LONGEST_SCALE * between.max()]) / units[1, 0]

    def surprise(logarithms: np.ndarray) -> float:
        variances, scales = units * np.exp(logarithms).reshape(2, 2)
        explained, determinant = filtered(points.gaps, points.weights, points.sums, variances, scales, LEAST_NEW)
        return 0.5 * (math.log(max(1 - explained / total, _ROUNDING)) + determinant / m)  # in no unit: it tells the end

    starts = [start]
    if start is None:
        times = np.quantile(between, _FIRST_TIMES)
        starts = [np.array([[_FIRST_VARIANCE, _FIRST_VARIANCE], [scale, _FIRST_COUNT]]) for scale in times]
    found = minimize(
        surprise,
        min((np.log(start / units).ravel() for start in starts), key=surprise),
        method="L-BFGS-B",
        bounds=np.log([_VARIANCES, _VARIANCES, ends, _COUNTS]),
        options={"maxiter": _ITERATIONS, "ftol": _TOLERANCE},
    )
    return units * np.exp(found.x).reshape(2, 2)
