"""SoftImpute by alternating least squares: sparse plus low rank, no dense matrix.

T. Hastie, R. Mazumder, J. Lee, R. Zadeh: Matrix Completion and Low-Rank SVD via Fast Alternating Least Squares. JMLR 16
(2015), 3367-3402, algorithm 3.1 (softImpute-ALS). The unseen entries are filled with the present estimate; the filled matrix
is never formed, only its products: residual on the samples (sparse) plus the estimate (low rank).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from peers.common import Sampled, Solution, Watch, centered, joined, limited, offsets, unwatched


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
    penalty: float = 0.0,
    first_penalty: float = 0.3,
    decrease: float = 0.5,
    steps: int = 10,
    bias: bool = False,
    iterations: int = 100_000,
    tolerance: float = 1e-8,
    dtype: type = np.float64,
) -> Solution:
    """Factors of at most the given rank.

    Parameters
    ----------
    penalty : float
        Weight of the nuclear norm at the end; 0 makes this the best rank-r fit that the iteration finds.
    first_penalty : float
        Weight at the start, relative to the largest singular value of the zero-filled matrix.
    decrease : float
        The penalty is multiplied by this every `steps` iterations until it is at `penalty` or below 1e-9 of the first.
    bias : bool
        Subtract mean, row and column offsets first.
    tolerance : float
        At the last penalty, stop when an iteration changes the root-mean-square residual, as a ratio, by less.
    """
    with limited(threads):
        watch = watch or unwatched()
        watch.start()
        shift = offsets(case) if bias else None
        samples = Sampled(centered(case, shift) if bias else case, dtype)
        u, spectrum, v = samples.truncated_svd(rank, seed)
        first = first_penalty * spectrum[0]
        scale = np.sqrt(spectrum).astype(dtype)  # the estimate is u diag(scale^2) v^T
        weight, before = first, np.inf
        for iteration in range(iterations):
            residual = samples.values - samples.entries(u * scale, v * scale)
            u, scale, v = _half(samples.transposed_times, residual, u, scale, v, weight)
            residual = samples.values - samples.entries(u * scale, v * scale)
            v, scale, u = _half(samples.times, residual, v, scale, u, weight)
            size = np.linalg.norm(residual)
            last = weight == penalty
            stop = last and abs(before - size) <= tolerance * size
            left, right = u * scale, v * scale
            if watch(*(joined(left, right, *shift) if bias else (left, right))) or stop:
                break
            before = size
            if not last and (iteration + 1) % steps == 0:
                weight = max(penalty, decrease * weight)
                weight = penalty if weight < 1e-9 * first else weight
        seconds = watch.seconds
    return (*(joined(left, right, *shift) if bias else (left, right)), seconds)


def _half(product, residual, fixed, scale, other, weight):
    """Solve for the other factor: returns new (fixed, scale, other), the two bases orthonormal."""
    shrunk = scale / (scale**2 + weight)
    target = (
        product(residual, np.ascontiguousarray(fixed)) + other * scale**2
    ) * shrunk  # (d, w), of the filled matrix
    basis, found, turn = np.linalg.svd(target * scale, full_matrices=False)
    return fixed @ turn.T, np.sqrt(found).astype(scale.dtype), basis
