"""Alternating least squares with conjugate gradients, from cmfrec (C, OpenMP): its CMF model without side information."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix

from peers.common import Solution, Watch, doubled, installed, joined


def available() -> tuple[bool, str]:
    """Whether cmfrec is there."""
    return installed("cmfrec")


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    ridge: float = 1e-6,
    conjugate: bool = True,
    bias: bool = False,
    iterations: int = 10,
    most: int = 5_120,
    single: bool = False,
) -> Solution:
    """Factors of the given rank.

    Parameters
    ----------
    ridge : float
        What cmfrec calls lambda.
    conjugate : bool
        Conjugate gradients for the row problems; Cholesky otherwise.
    bias : bool
        Fit mean, row and column offsets along with the factors.
    iterations, most : int
        Without a watch, and at most with one.
    single : bool
        float32.
    """
    from cmfrec import CMF

    def fit(count: int) -> Solution:
        model = CMF(
            k=rank, lambda_=ridge, method="als", use_cg=conjugate, user_bias=bias, item_bias=bias, center=bias,
            niter=count, nthreads=threads, use_float=single, random_state=seed + 1, verbose=False,
            precompute_for_predictions=False,
        )  # fmt: skip
        begin = time.perf_counter()
        data = coo_matrix((case["values"], (case["rows"], case["cols"])), shape=case["shape"])
        model.fit(data)
        seconds = time.perf_counter() - begin
        left, right = np.asarray(model.A_, float), np.asarray(model.B_, float)
        if bias:
            left, right = joined(left, right, float(model.glob_mean_), model.user_bias_, model.item_bias_)
        return left, right, seconds

    return doubled(fit, watch, iterations, most)
