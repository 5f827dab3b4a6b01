"""What the peers share: a stopwatch that does not count its own measuring, sampled matrices on two threads, offsets, starts."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange, set_num_threads
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

Factors = tuple[np.ndarray, np.ndarray]
Solution = tuple[np.ndarray, np.ndarray, float]
_SPACING = 1.02  # the time from one measurement to the next, as a ratio, so that short runs are resolved and long ones not slowed


def installed(package: str) -> tuple[bool, str]:
    """Whether `package` can be imported, and if not, what to do."""
    if importlib.util.find_spec(package) is None:
        return False, f"{package} is not installed: pip install 'dmf[peers]'"
    return True, ""


class Watch:
    """Times a solver and measures its factors as it runs.

    Parameters
    ----------
    measure : callable
        Error of factors left (d1, w) and right (d2, w).
    target : float
        The solver may stop at this error.
    limit : float
        Seconds after which it should.

    Attributes
    ----------
    trace : list of (seconds, error)
    """

    def __init__(self, measure: Callable[..., float], target: float = 0.0, limit: float = np.inf) -> None:
        self._measure, self._target, self.limit = measure, target, limit
        self.trace: list[tuple[float, float]] = []
        self._begin, self._paused = time.perf_counter(), 0.0

    def start(self) -> None:
        """Set the time to zero; what a solver prepares before this is not counted."""
        self._begin, self._paused = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start, without those spent on measuring."""
        return time.perf_counter() - self._begin - self._paused

    def __call__(self, left: np.ndarray, right: np.ndarray) -> bool:
        """Note the error now and then; true if the solver should stop."""
        seconds, begin = self.seconds, time.perf_counter()
        if self.trace and seconds < _SPACING * self.trace[-1][0]:
            return seconds >= self.limit
        error = self._measure(left, right)
        self.trace.append((seconds, error))
        self._paused += time.perf_counter() - begin
        return error <= self._target or seconds >= self.limit

    def offer(self, seconds: float, left: np.ndarray, right: np.ndarray) -> bool:
        """Note the error of a run that took `seconds` from its start to its end; true if the solver should stop."""
        error = self._measure(left, right)
        self.trace.append((seconds, error))
        return not np.isfinite(error) or error <= self._target or seconds >= self.limit

    def seconds_to(self, error: float) -> float | None:
        """Seconds to the first error noted at or below `error`; None if there is none."""
        return next((seconds for seconds, found in self.trace if found <= error), None)


def unwatched() -> Watch:
    """A watch that measures nothing and stops nothing."""
    return Watch(lambda left, right: np.inf)


def doubled(fit: Callable[[int], Solution], watch: Watch | None, first: int, most: int) -> Solution:
    """Run a solver that shows no iterates with more and more iterations, each time from its start, until `watch` is content.

    ``fit(iterations)`` returns left, right, seconds. Of the last run, only its own seconds count. A run that would pass the
    limit is not begun, and neither is one after four doublings without gain. Without a watch, `first` iterations.
    """
    solution, iterations = fit(first), first
    if watch is None:
        return solution
    best, idle = np.inf, 0
    while not watch.offer(solution[2], *solution[:2]):
        error = watch.trace[-1][1]
        best, idle = (error, 0) if error < 0.9 * best else (best, idle + 1)
        iterations *= 2
        if iterations > most or idle == 4 or 1.5 * solution[2] > watch.limit:
            break
        solution = fit(iterations)
    return solution


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """At most so many threads in Numba, BLAS and OpenMP."""
    before = get_num_threads()
    set_num_threads(min(threads, before))
    try:
        with threadpool_limits(threads):
            yield
    finally:
        set_num_threads(before)


class Sampled:
    """Sampled entries, by row and by column.

    Attributes
    ----------
    rows, cols, values
        Sorted by row.
    """

    def __init__(self, case: dict[str, Any], dtype: type = np.float64) -> None:
        order = np.lexsort((case["cols"], case["rows"]))
        self.shape = case["shape"]
        self.rows, self.cols = (np.asarray(case[key], np.int32)[order] for key in ("rows", "cols"))
        self.values = np.asarray(case["values"], dtype)[order]
        self.row_starts = _starts(self.rows, self.shape[0])
        self.by_col = np.argsort(self.cols, kind="stable")
        self.rows_by_col, self.col_starts = self.rows[self.by_col], _starts(self.cols, self.shape[1])

    def entries(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Entries of ``left @ right.T`` at the samples."""
        return sampled_entries(left, right, self.rows, self.cols)

    def times(self, data: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The sparse matrix with these data, times `right` (d2, w)."""
        return sparse_product(self.row_starts, self.cols, data, right)

    def transposed_times(self, data: np.ndarray, left: np.ndarray) -> np.ndarray:
        """The transpose of the sparse matrix with these data, times `left` (d1, w)."""
        return sparse_product(self.col_starts, self.rows_by_col, data[self.by_col], left)

    def truncated_svd(self, rank: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Top singular vectors (as columns) and values of the matrix with zeros where nothing was seen."""
        matrix = csr_array((self.values.astype(float), self.cols, self.row_starts), shape=self.shape)
        start = np.random.default_rng(seed).standard_normal(min(self.shape))
        u, s, vt = svds(matrix, rank, v0=start, tol=1e-4)
        order = np.argsort(s)[::-1]
        return u[:, order].astype(self.values.dtype), s[order], vt[order].T.astype(self.values.dtype)


def spectral_start(samples: Sampled, rank: int, seed: int = 0) -> Factors:
    """Balanced factors of the best rank-r approximation of the zero-filled matrix over the share of entries seen."""
    u, s, v = samples.truncated_svd(rank, seed)
    share = samples.values.size / (samples.shape[0] * samples.shape[1])
    roots = np.sqrt(s / share).astype(u.dtype)
    return u * roots, v * roots


def offsets(case: dict[str, Any], damping: float = 5.0, sweeps: int = 5) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean, row and column offsets of ratings: ridge least squares by alternation, `damping` on every offset."""
    rows, cols, (d1, d2) = case["rows"], case["cols"], case["shape"]
    values = case["values"].astype(float)
    mean = float(values.mean())
    values -= mean
    by_row, by_col = np.zeros(d1), np.zeros(d2)
    rows_held, cols_held = np.bincount(rows, minlength=d1) + damping, np.bincount(cols, minlength=d2) + damping
    for _ in range(sweeps):
        by_col = np.bincount(cols, values - by_row[rows], d2) / cols_held
        by_row = np.bincount(rows, values - by_col[cols], d1) / rows_held
    return mean, by_row, by_col


def centered(case: dict[str, Any], found: tuple[float, np.ndarray, np.ndarray]) -> dict[str, Any]:
    """The case less its offsets."""
    mean, by_row, by_col = found
    return case | {"values": case["values"] - (mean + by_row[case["rows"]] + by_col[case["cols"]])}


def joined(left, right, mean, by_row, by_col) -> Factors:
    """Factors of ``left @ right.T`` plus mean and offsets: two columns more."""
    left = np.column_stack([left, mean + np.asarray(by_row), np.ones(len(left))])
    return left, np.column_stack([right, np.ones(len(right)), by_col])


def _starts(sorted_or_not: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(sorted_or_not, minlength=size))])


@njit(parallel=True, fastmath=True, cache=True)
def sampled_entries(left, right, rows, cols):
    values = np.empty(rows.size, left.dtype)
    for k in prange(rows.size):
        i, j = rows[k], cols[k]
        total = left.dtype.type(0)
        for w in range(left.shape[1]):
            total += left[i, w] * right[j, w]
        values[k] = total
    return values


@njit(parallel=True, fastmath=True, cache=True)
def sparse_product(starts, indices, data, dense):
    product = np.zeros((starts.size - 1, dense.shape[1]), dense.dtype)
    for i in prange(starts.size - 1):
        for k in range(starts[i], starts[i + 1]):
            j, x = indices[k], data[k]
            for w in range(dense.shape[1]):
                product[i, w] += x * dense[j, w]
    return product
