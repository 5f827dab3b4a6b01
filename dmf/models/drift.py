"""Drift: how the values of a row, or of a column, rise and fall with time beside its offset.

The effect of a row is the sum of two stationary Gaussian processes that remember their last value alone (Ornstein-Uhlenbeck
processes): one in time, and one in the number of entries of the row, such as the moods of somebody who rates a hundred films in
an hour. Between two points of time its mean follows from those at both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

LEAST_NEW = 1e-9  # least share of a variance that is new at the next point: below, rounding errors are larger
_AT_ONCE = 2**20  # effects that are computed together


@dataclass(frozen=True, eq=False)
class Path:
    """Effects of all rows, or of all columns, at the points of time of their entries.

    Attributes
    ----------
    starts : int64 array, shape (d + 1,)
        Where the points of each row begin; the last is their number n.
    times : float64 array, shape (n,)
        Ascending in each row.
    counts : int64 array, shape (n,)
        Entries at each point.
    states : float64 array, shape (n, 2)
        Means of the process in time, and of that in the number of entries.
    sizes : float64 array, shape (2, 2)
        Variances of both processes in units of that of the noise; time, and number of entries, after which they have kept a share
        of 1/e.
    """

    starts: np.ndarray
    times: np.ndarray
    counts: np.ndarray
    states: np.ndarray
    sizes: np.ndarray

    @cached_property
    def places(self) -> np.ndarray:
        """Middle of the numbers of the entries at each point, counted from 0 in each row; float64, shape (n,)."""
        before, sizes = np.cumsum(self.counts) - self.counts, np.diff(self.starts)
        return before - np.repeat(before[self.starts[:-1][sizes > 0]], sizes[sizes > 0]) + (self.counts - 1) / 2

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def at(self, index: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Effects of rows (m,) at times (m,): between two points what both let expect, outside of them fading to 0."""
        effects = np.zeros(index.size)
        for begin in range(0, index.size if self.times.size else 0, _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            effects[part] = self._at(index[part], times[part])
        return effects

    def _at(self, index: np.ndarray, times: np.ndarray) -> np.ndarray:
        from dmf.kernels.drift import neighbours

        last, first = neighbours(self.starts, self.times, index.astype(np.int64), times)
        there = last >= self.starts[index], first < self.starts[index + 1]
        last, first = np.where(there[0], last, 0), np.where(there[1], first, 0)
        met = there[0] & (last == first) & there[1]
        place = np.where(there[0], self.places[last] + np.where(met, 0, self.counts[last] / 2), -0.5)
        effects = np.zeros(index.size)
        for k, (points, here) in enumerate(((self.times, times), (self.places, place))):
            with np.errstate(over="ignore"):
                one, other = (
                    np.where(known, np.exp(-np.abs(here - points[at]) / self.sizes[1, k]), 0.0)
                    for known, at in zip(there, (last, first), strict=True)
                )
            new = 1 - (one * other) ** 2
            shares = (
                np.where(new < LEAST_NEW, 0.5, a * (1 - b * b) / np.maximum(new, LEAST_NEW))
                for a, b in ((one, other), (other, one))
            )
            for share, at in zip(shares, (last, first), strict=True):
                effects += share * self.states[at, k]
        return effects


@dataclass(frozen=True, eq=False)
class Drift:
    """Effects of time on rows and on columns; None where there are none."""

    rows: Path | None
    columns: Path | None

    def summary(self) -> dict[str, dict[str, list[float]]]:
        """Of each side that drifts, variances and scales of both processes, see `Path.sizes`."""
        return {
            name: {"variances": path.sizes[0].tolist(), "scales": path.sizes[1].tolist()}
            for name, path in vars(self).items()
            if path is not None
        }

    def at(self, rows: np.ndarray, cols: np.ndarray, times: np.ndarray) -> np.ndarray:
        """What is added to entries at positions (m,) and times (m,); float64 NumPy arrays."""
        effects = np.zeros(times.size)
        for path, index in ((self.rows, rows), (self.columns, cols)):
            if path is not None:
                effects += path.at(index, times)
        return effects
