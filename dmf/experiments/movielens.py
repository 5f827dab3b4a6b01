"""The paper's experiment with real data: MovieLens-100K."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dmf.errors import FileError
from dmf.experiments.results import Experiment, Progress, Runner
from dmf.io.matrices import read_entries
from dmf.models import DeepLinearNetwork, orthogonal_network, spectral_network
from dmf.observations import SampledEntries
from dmf.solvers import Checkpoint, largest_curvature


def movielens(
    small: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    data: Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> Experiment:
    """MovieLens-100K ratings, 80 % seen, as in the paper: no offsets, half mean square on the others.

    The data, the depth, the compressed rank and the outer scale follow the paper. The rest is ours: the mean over 80,000
    ratings makes gradients tiny, and from layers of scale 1e-2 nothing is learned in 20,000 iterations. So layers start at scale
    1, and each network takes its own step, 1.5 over the largest curvature at the network whose every entry is the mean rating
    (stable below 2): for the original network, which has no outer scale, a five times larger one. Its iterations take a fifth of
    a second or more each, so all runs are in single precision, and it stops soon after its best error. AltMin needs a ridge,
    tuned on the same held-out ratings, or it fits noise.
    All three overfit in the end, so read their best error.

    Raises
    ------
    FileError
        If `data`, a file of ratings, is not given or cannot be read.
    """
    if data is None:
        raise FileError(
            "no file of ratings is given, and dmf may not ship MovieLens-100K. Get it from grouplens.org and pass u.data or "
            "ml-100k.inter (user, item, rating, one line each): --data FILE."
        )
    ratings = SampledEntries.from_entries(read_entries(data))
    if small:
        inside = (ratings.rows < 200) & (ratings.cols < 300)
        ratings = type(ratings)(ratings.rows[inside], ratings.cols[inside], ratings.values[inside], (200, 300))
    ratings = type(ratings)(ratings.rows, ratings.cols, ratings.values.astype(np.float32), ratings.shape)
    seen, held = ratings.split(0.2, seed)
    rank, scale, outer_scale, ridge = 10, 1.0, 5.0, 7.0
    iterations, compressed_iterations, sweeps = (300, 500, 20) if small else (1_200, 1_800, 20)
    flat = _constant_network(float(seen.values.mean()), seen.shape)
    step_size, compressed_step_size = (1.5 / largest_curvature(seen, flat, factor) for factor in (1.0, outer_scale))
    settings = {
        "ratings seen": seen.n_measurements, "ratings held out": held.n_measurements, "compressed rank": rank, "depth": 3,
        "scale": scale, "step size (original)": step_size, "step size (compressed)": compressed_step_size,
        "outer scale (compressed)": outer_scale, "iterations (original)": iterations,
        "iterations (compressed)": compressed_iterations, "ridge (AltMin)": ridge, "sweeps (AltMin)": sweeps,
        "precision": "float32", "seed": seed,
    }  # fmt: skip
    title = f"MovieLens-100K: {ratings.shape[0]} users, {ratings.shape[1]} films, {seen.n_measurements} ratings seen"
    ours = ["scale", "step size", "iterations", "ridge", "sweeps", "precision"]
    note = f"settings of ours, not the paper's: {', '.join(name for name in settings if name.split(' (')[0] in ours)}"
    note += "; the ridge was tuned on held-out ratings; all runs overfit in the end, so read their best error"
    experiment = Experiment("movielens", title, "half mean square on held-out ratings", settings, small, note=note)

    def error(network: DeepLinearNetwork) -> dict[str, float]:
        return {"error": float(held.loss(*network.factors())) / held.n_measurements}

    runner = Runner(experiment, seen, error, progress, checkpoint)
    original = orthogonal_network(seen.shape, scale=scale, seed=seed, like=seen.values)
    runner.descend("original", original, step_size, iterations=iterations, record_every=20)
    runner.descend(
        "compressed", spectral_network(seen, rank, scale=scale, seed=seed), compressed_step_size,
        outer_scale=outer_scale, iterations=compressed_iterations, record_every=20,
    )  # fmt: skip
    runner.alternate(rank, iterations=sweeps, ridge=ridge)
    return experiment


def _constant_network(value: float, shape: tuple[int, int]) -> DeepLinearNetwork:
    """Balanced network of depth 3 and width 1 whose every entry is `value` > 0, in single precision."""
    root = (value * math.sqrt(math.prod(shape))) ** (1 / 3)
    (d1, d2), ones = shape, np.ones((1, 1), np.float32)
    return DeepLinearNetwork(
        [w * np.float32(root) for w in (ones.repeat(d2, 1) / d2**0.5, ones, ones.repeat(d1, 0) / d1**0.5)]
    )
