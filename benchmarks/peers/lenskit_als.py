"""Biased matrix factorization by alternating least squares, from LensKit (float32, Rust, many threads).

Its penalty is ridge times the number of samples of the row, and it always subtracts mean, column and row offsets first.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from peers.common import Solution, Watch, doubled, installed, joined


def available() -> tuple[bool, str]:
    """Whether LensKit is there."""
    return installed("lenskit")


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    ridge: float = 1e-6,
    damping: float = 5.0,
    iterations: int = 10,
    most: int = 5_120,
) -> Solution:
    """Factors of the given rank and two more columns for mean and offsets; `threads` counts only at the first call."""
    os.environ["LK_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
    import pandas as pd
    from lenskit.als import BiasedMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    begin = time.perf_counter()
    frame = pd.DataFrame({"user_id": case["rows"], "item_id": case["cols"], "rating": case["values"]})
    d1, d2 = case["shape"]
    data = from_interactions_df(frame, users=np.arange(d1), items=np.arange(d2))
    prepared = time.perf_counter() - begin

    def fit(count: int) -> Solution:
        model = BiasedMFScorer(embedding_size=rank, epochs=count, regularization=ridge, damping=damping)
        begin = time.perf_counter()
        model.train(data, TrainingOptions(rng=seed))
        seconds = prepared + time.perf_counter() - begin
        left, right = np.asarray(model.user_embeddings, float), np.asarray(model.item_embeddings, float)
        bias = model.bias
        return *joined(left, right, bias.global_bias, bias.user_biases, bias.item_biases), seconds

    return doubled(fit, watch, iterations, most)
