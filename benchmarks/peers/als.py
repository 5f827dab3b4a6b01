"""Alternating least squares in Numba: for fixed right factors each row is a ridge regression, and the other way round.

Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan: Large-Scale Parallel Collaborative Filtering for the Netflix Prize. AAIM 2008.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from peers.common import Sampled, Solution, Watch, centered, joined, limited, offsets, spectral_start, unwatched


def available() -> tuple[bool, str]:
    """Always: it needs what dmf needs."""
    return True, ""


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    ridge: float = 1e-9,
    first_ridge: float | None = None,
    decrease: float = 0.7,
    weighted: bool = False,
    bias: bool = False,
    iterations: int = 100_000,
    tolerance: float = 1e-8,
    dtype: type = np.float64,
) -> Solution:
    """Factors of the given rank from a spectral start.

    Parameters
    ----------
    ridge : float
        Penalty on the squared rows of both factors; with `weighted`, times the number of samples of the row.
    first_ridge, decrease : float
        Penalty of the first iteration, if not `ridge`, and the factor on it after each until it is at `ridge`.
    bias : bool
        Subtract mean, row and column offsets first.
    tolerance : float
        Stop when an iteration changes the root-mean-square residual, as a ratio, by less.
    """
    with limited(threads):
        watch = watch or unwatched()
        watch.start()
        shift = offsets(case) if bias else None
        samples = Sampled(centered(case, shift) if bias else case, dtype)
        left, right = spectral_start(samples, rank, seed)
        before, penalty = np.inf, ridge if first_ridge is None else first_ridge
        for _ in range(iterations):
            left, _ = _solve_rows(samples.row_starts, samples.cols, samples.values, right, penalty, weighted)
            values = samples.values[samples.by_col]
            right, loss = _solve_rows(samples.col_starts, samples.rows_by_col, values, left, penalty, weighted)
            residual = np.sqrt(loss.sum())
            stop = penalty == ridge and abs(before - residual) <= tolerance * residual
            if watch(*(joined(left, right, *shift) if bias else (left, right))) or stop:
                break
            before, penalty = residual, max(ridge, decrease * penalty)
        seconds = watch.seconds
    return (*(joined(left, right, *shift) if bias else (left, right)), seconds)


@njit(parallel=True, fastmath=True, cache=True)
def _solve_rows(starts, indices, values, fixed, ridge, weighted):
    """Rows that minimise the squared residuals plus ridge; and the squared residual of each."""
    size, rank = starts.size - 1, fixed.shape[1]
    found, loss = np.zeros((size, rank), fixed.dtype), np.zeros(size)
    for i in prange(size):
        begin, end = starts[i], starts[i + 1]
        if end == begin:
            continue
        gram, x = np.zeros((rank, rank), fixed.dtype), np.zeros(rank, fixed.dtype)
        for k in range(begin, end):
            row, value = indices[k], values[k]
            for a in range(rank):
                weight = fixed[row, a]
                x[a] += value * weight
                for b in range(a + 1):
                    gram[a, b] += weight * fixed[row, b]
        penalty = ridge * (end - begin) if weighted else ridge
        for a in range(rank):  # Cholesky, in place, lower triangle
            gram[a, a] += penalty
            for b in range(a + 1):
                total = gram[a, b]
                for c in range(b):
                    total -= gram[a, c] * gram[b, c]
                gram[a, b] = total / gram[b, b] if b < a else np.sqrt(max(total, 1e-30))
        for a in range(rank):
            total = x[a]
            for c in range(a):
                total -= gram[a, c] * x[c]
            x[a] = total / gram[a, a]
        for a in range(rank - 1, -1, -1):
            total = x[a]
            for c in range(a + 1, rank):
                total -= gram[c, a] * x[c]
            x[a] = total / gram[a, a]
            found[i, a] = x[a]
        for k in range(begin, end):
            total = -values[k]
            for a in range(rank):
                total += fixed[indices[k], a] * x[a]
            loss[i] += total * total
    return found, loss
