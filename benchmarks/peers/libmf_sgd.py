"""Parallel stochastic gradient descent with adaptive rates, from LIBMF (float32, C++) through its Python package.

W.-S. Chin, Y. Zhuang, Y.-C. Juan, C.-J. Lin: A Learning-Rate Schedule for Stochastic Gradient Methods to Matrix Factorization.
PAKDD 2015.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from typing import Any

import numpy as np

from peers.common import Solution, Watch, centered, doubled, installed, joined, offsets


def available() -> tuple[bool, str]:
    """Whether libmf is there."""
    return installed("libmf")


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    ridge: float = 0.0,
    rate: float = 0.1,
    bias: bool = False,
    iterations: int = 50,
    most: int = 12_800,
) -> Solution:
    """Factors of the given rank; LIBMF draws its start itself, so `seed` changes nothing.

    Parameters
    ----------
    ridge, rate : float
        LIBMF's lambda_p2 = lambda_q2 and eta.
    bias : bool
        Subtract mean, row and column offsets first.
    iterations, most : int
        Passes over the data: without a watch, and at most with one.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", SyntaxWarning)
        from libmf import mf

    def fit(count: int) -> Solution:
        begin = time.perf_counter()
        shift = offsets(case) if bias else None
        values = (centered(case, shift) if bias else case)["values"]
        data = np.column_stack([case["rows"], case["cols"], values]).astype(np.float32)
        model = mf.MF(
            k=rank, nr_threads=threads, nr_iters=count, lambda_p1=0.0, lambda_q1=0.0, lambda_p2=ridge, lambda_q2=ridge,
            eta=rate, quiet=True, nr_bins=max(20, 2 * threads + 1),
        )  # fmt: skip
        model.fit(data)
        seconds = time.perf_counter() - begin
        sizes = zip(case["shape"], (model.p_factors(), model.q_factors()), strict=True)
        left, right = (
            np.nan_to_num(_padded(factor, size).astype(float)) for size, factor in sizes
        )  # NaN: nothing seen
        if bias:
            left, right = joined(left, right, *shift)
        return left, right, seconds

    return doubled(fit, watch, iterations, most)


def _padded(factor: np.ndarray, size: int) -> np.ndarray:
    """With rows of zeros for the last rows of the matrix if none of their entries was seen."""
    return np.vstack([factor, np.zeros((size - len(factor), factor.shape[1]))])
