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

    The published step size is in no notebook; ours is 1.5 over the largest curvature at the network whose every entry is the
    mean rating (stable below 2), six times what the published figure took to leave the start. Its curves show 1.3 times as many
    iterations for the original network, which fits an outer scale of 1, as here: larger ones widen that. The largest
    component, near the mean rating, is learned after some 5,000 iterations, and the next one beyond the end of the figure.
    An iteration of the original network takes a fifth of a second or more, so all runs are in single precision.

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
    rank, scale, ridge, sweeps = 10, 1e-2, 1e-3, 20
    step_size = 1.5 / largest_curvature(seen, _constant_network(float(seen.values.mean()), seen.shape))
    iterations = 2_500 if small else 8_000
    settings = {
        "ratings seen": seen.n_measurements, "ratings held out": held.n_measurements, "compressed rank": rank, "depth": 3,
        "scale": scale, "step size": step_size, "iterations": iterations, "ridge (AltMin)": ridge, "sweeps (AltMin)": sweeps,
        "precision": "float32", "seed": seed,
    }  # fmt: skip
    title = f"MovieLens-100K: {ratings.shape[0]} users, {ratings.shape[1]} films, {seen.n_measurements} ratings seen"
    note = "the step size is ours: the published one is in no notebook, so numbers of iterations are compared by their quotient"
    experiment = Experiment("movielens", title, "half mean square on held-out ratings", settings, small, note=note)

    def error(network: DeepLinearNetwork) -> dict[str, float]:
        return {"error": float(held.loss(*network.factors())) / held.n_measurements}

    runner = Runner(experiment, seen, error, progress, checkpoint)
    options = {"iterations": iterations, "record_every": 20}
    start = orthogonal_network(seen.shape, scale=scale, seed=seed, like=seen.values)
    original = runner.descend("original", start, step_size, **options)
    compressed = runner.descend(
        "compressed", spectral_network(seen, rank, scale=scale, seed=seed), step_size, **options
    )
    alternating = runner.alternate(rank, iterations=sweeps, ridge=ridge)
    reached = [curve.iterations_to(1.0) for curve in (original, compressed)]
    experiment.quotient("iterations to an error of 1, original over compressed", 1.3, reached[0] / reached[1])
    for curve in (original, compressed):
        experiment.claim(f"error at the end, {curve.label}", 0.52, float(curve.run.history["error"][-1]))
    errors = alternating.run.history["error"]
    experiment.claim("best error, AltMin", 0.7, float(errors.min()))
    experiment.quotient("error at the end over the best one, AltMin", 1.3, float(errors[-1] / errors.min()))
    return experiment


def _constant_network(value: float, shape: tuple[int, int]) -> DeepLinearNetwork:
    """Balanced network of depth 3 and width 1 whose every entry is `value` > 0, in single precision."""
    root = (value * math.sqrt(math.prod(shape))) ** (1 / 3)
    (d1, d2), ones = shape, np.ones((1, 1), np.float32)
    return DeepLinearNetwork(
        [w * np.float32(root) for w in (ones.repeat(d2, 1) / d2**0.5, ones, ones.repeat(d1, 0) / d1**0.5)]
    )
