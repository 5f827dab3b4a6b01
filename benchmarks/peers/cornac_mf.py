"""Matrix factorization by stochastic gradient descent, from Cornac (float32, Cython, many threads)."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import numpy as np

from peers.common import Solution, Watch, doubled, installed, joined


def available() -> tuple[bool, str]:
    """Whether Cornac is there."""
    return installed("cornac")


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    ridge: float = 0.0,
    rate: float = 0.01,
    bias: bool = False,
    iterations: int = 100,
    most: int = 12_800,
) -> Solution:
    """Factors of the given rank.

    Parameters
    ----------
    ridge, rate : float
        Cornac's lambda_reg and learning_rate.
    bias : bool
        Fit mean, row and column offsets along with the factors.
    iterations, most : int
        Passes over the data: without a watch, and at most with one.

    Notes
    -----
    The start is given instead of Cornac's seed, as with a seed it runs on one thread.
    """
    from cornac.data import Dataset
    from cornac.models import MF

    d1, d2 = case["shape"]
    begin = time.perf_counter()
    data = Dataset(
        num_users=d1, num_items=d2,
        uid_map=OrderedDict((i, i) for i in range(d1)), iid_map=OrderedDict((j, j) for j in range(d2)),
        uir_tuple=(case["rows"].astype(np.int64), case["cols"].astype(np.int64), case["values"].astype(np.float32)),
    )  # fmt: skip
    prepared = time.perf_counter() - begin

    def fit(count: int) -> Solution:
        generator = np.random.default_rng(seed)
        scale = 0.01 if bias else 0.1  # without offsets a start at 0.01 leaves zero only after many passes
        start = {
            key: (scale * generator.standard_normal((size, rank))).astype(np.float32)
            for key, size in (("U", d1), ("V", d2))
        }
        model = MF(
            k=rank, max_iter=count, learning_rate=rate, lambda_reg=ridge, use_bias=bias, num_threads=threads,
            init_params=start,
        )  # fmt: skip
        begin = time.perf_counter()
        model.fit(data)
        seconds = prepared + time.perf_counter() - begin
        left, right = model.u_factors.astype(float), model.i_factors.astype(float)
        if bias:
            left, right = joined(left, right, float(model.global_mean), model.u_biases, model.i_biases)
        return left, right, seconds

    return doubled(fit, watch, iterations, most)
