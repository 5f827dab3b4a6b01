"""The paper's experiments: original against compressed network, and alternating minimisation where the paper has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.threads import one_blas_thread
from dmf.errors import FileError
from dmf.experiments.problems import gaussian_measurements, paper_target, sample_entries
from dmf.io.matrices import read_entries
from dmf.io.pictures import plot_errors, plot_sweep
from dmf.models import DeepLinearNetwork, orthogonal_network, spectral_network
from dmf.observations import FullMatrix, Observations, SampledEntries
from dmf.solvers import Checkpoint, Run, Snapshot, alternating_minimization, gradient_descent, largest_curvature
from dmf.solvers.outcomes import uninterrupted

Progress = Callable[[str, Snapshot], None]

_ONE_THREAD = 128  # rows and columns, up to which a network is trained by one thread


@dataclass(frozen=True)
class Curve:
    """One run: `run.history` holds what the experiment measures in the column `measure`."""

    label: str
    run: Run
    measure: str = "error"
    best: Callable[[np.ndarray], Any] = np.min

    def row(self) -> dict[str, Any]:
        """What tables show of this run."""
        history = self.run.history
        return {
            "network": self.label,
            "iterations": int(history.iteration[-1]),
            "seconds": float(history.seconds[-1]),
            "parameters": self.run.network.n_parameters,
            "training loss": float(history.loss[-1]),
            self.measure: float(history[self.measure][-1]),
            f"best {self.measure}": float(self.best(history[self.measure])),
            "outcome": self.run.outcome.name,
        }


@dataclass(frozen=True)
class Experiment:
    """Curves of one experiment of the paper, with the settings that produced them."""

    name: str
    title: str
    error: str  # what the column "error" measures
    settings: dict[str, Any]
    curves: list[Curve] = field(default_factory=list)
    note: str = ""  # what differs from the paper

    def rows(self) -> list[dict[str, Any]]:
        """One table row for each curve."""
        return [curve.row() for curve in self.curves]

    def as_json(self) -> dict[str, Any]:
        """Settings, table and full curves, as JSON holds them."""
        curves = [
            {"label": curve.label} | {name: np.asarray(column).tolist() for name, column in curve.run.history.items()}
            for curve in self.curves
        ]
        return {
            "experiment": self.name,
            "title": self.title,
            "error": self.error,
            "settings": self.settings,
            "note": self.note,
            "table": self.rows(),
            "curves": curves,
        }


class _Runner:
    """Runs networks on one problem and collects their curves."""

    def __init__(
        self,
        experiment: Experiment,
        observations: Observations,
        error: Callable[[DeepLinearNetwork], float],
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.experiment, self._observations, self._error, self._progress = experiment, observations, error, progress
        self._checkpoint = checkpoint

    def _measure(self, label: str) -> Callable[[Snapshot], Mapping[str, float]]:
        def callback(snapshot: Snapshot) -> Mapping[str, float]:
            if self._progress is not None:
                self._progress(label, snapshot)
            return {"error": self._error(snapshot.network)}

        return callback

    def descend(self, label: str, network: DeepLinearNetwork, step_size: float, **options: Any) -> None:
        callback = self._measure(label)
        # Threads gain nothing on products of small matrices, and on a busy machine they wait for each other.
        small = max(network.shape) <= _ONE_THREAD
        with one_blas_thread() if small else nullcontext():
            run = gradient_descent(
                self._observations, network, step_size, callback=callback, checkpoint=self._checkpoint, **options
            )
        self.experiment.curves.append(Curve(label, uninterrupted(run)))

    def alternate(self, rank: int, **options: Any) -> None:
        label = "AltMin"
        run = alternating_minimization(
            self._observations, rank, callback=self._measure(label), checkpoint=self._checkpoint, **options
        )
        self.experiment.curves.append(Curve(label, uninterrupted(run)))


def relative_error(target: np.ndarray) -> Callable[[DeepLinearNetwork], float]:
    """Function of a network: ``||W - M||_F / ||M||_F``."""
    size = np.linalg.norm(target)
    return lambda network: float(np.linalg.norm(network.product() - target) / size)


def demo(seed: int = 0, progress: Progress | None = None) -> Experiment:
    """The paper's main result in seconds: completion at d=100, r=5, 30 % seen, original against compressed network."""
    return _completion("demo", 100, 5, 10, 10.0, 5.0, 0.3, 20_000, seed, progress, None, altmin=False)


def completion(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Matrix completion, 30 % of the entries seen, r=10, over-estimated twofold."""
    if small:
        return _completion("completion", 40, 3, 6, 5.0, 5.0, 0.5, 4_000, seed, progress, checkpoint)
    return _completion("completion", 100, 10, 20, 50.0, 1.0, 0.3, 40_000, seed, progress, checkpoint)


def _completion(
    name, d, rank, width, step_size, outer_scale, share, iterations, seed, progress, checkpoint, altmin=True
):
    target = paper_target(d, rank, seed)
    seen, _ = sample_entries(target, share, seed)
    settings = {
        "d": d, "rank": rank, "compressed rank": width, "depth": 3, "scale": 1e-2, "step size": step_size,
        "outer scale (compressed)": outer_scale, "share of entries seen": share, "seed": seed,
    }  # fmt: skip
    title = f"Completion: {d} x {d}, rank {rank}, {share:.0%} of the entries seen"
    experiment = Experiment(name, title, "relative recovery error", settings)
    runner = _Runner(experiment, seen, relative_error(target), progress, checkpoint)
    options = {"iterations": iterations, "tolerance": 1e-12, "record_every": 50}
    runner.descend("original", orthogonal_network(target.shape, seed=seed), step_size, **options)
    runner.descend("compressed", spectral_network(seen, width), step_size, outer_scale=outer_scale, **options)
    if altmin:
        runner.alternate(width, iterations=200, tolerance=1e-12)
    return experiment


def factorization(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Deep factorization of a fully known matrix of rank 10.

    Step and scale are the paper's; with its 100,000 iterations neither network has learned all components (the theory puts the
    smallest one at 112,000 for the compressed network), so we run twice as many. The original network follows its exact
    compression (`gradient_descent(exact_compression=True)`): the same trajectory, in the time of a small network.
    """
    d, rank, step_size, iterations = (40, 4, 5.0, 8_000) if small else (100, 10, 1.0, 200_000)
    target = paper_target(d, rank, seed)
    settings = {
        "d": d, "rank": rank, "compressed rank": 2 * rank, "depth": 3, "scale": 1e-2, "step size": step_size,
        "iterations": iterations, "original network": "followed by its exact compression", "seed": seed,
    }  # fmt: skip
    title = f"Factorization: {d} x {d}, rank {rank}"
    note = "the original network follows its exact compression: the same errors, but its seconds are not those of a wide network"
    if not small:
        note = f"ours, not the paper's: {iterations:,} iterations (the paper: 100,000); {note}"
    experiment = Experiment("factorization", title, "relative error", settings, note=note)
    known = FullMatrix(target)
    runner = _Runner(experiment, known, relative_error(target), progress, checkpoint)
    options = {"iterations": iterations, "tolerance": 1e-14, "record_every": max(1, iterations // 400)}
    original = orthogonal_network(target.shape, seed=seed)
    runner.descend("original", original, step_size, exact_compression=True, **options)
    runner.descend("compressed", spectral_network(known, 2 * rank), step_size, **options)
    return experiment


def sensing(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Recovery from Gaussian measurements."""
    d, rank, count, step_size, iterations = (40, 2, 1200, 20.0, 1_500) if small else (200, 5, 4000, 20.0, 3_000)
    target = paper_target(d, rank, seed)
    settings = {
        "d": d, "rank": rank, "compressed rank": 2 * rank, "measurements": count, "depth": 3, "scale": 1e-2,
        "step size": step_size, "reduction": "sum", "seed": seed,
    }  # fmt: skip
    title = f"Sensing: {d} x {d}, rank {rank}, {count} Gaussian measurements"
    experiment = Experiment("sensing", title, "relative recovery error", settings)
    measured = gaussian_measurements(target, count, seed)
    runner = _Runner(experiment, measured, relative_error(target), progress, checkpoint)
    options = {"iterations": iterations, "tolerance": 1e-14, "record_every": 10, "reduction": "sum"}
    runner.descend("original", orthogonal_network(target.shape, seed=seed), step_size, **options)
    runner.descend("compressed", spectral_network(measured, 2 * rank), step_size, **options)
    return experiment


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
    experiment = Experiment("movielens", title, "half mean square on held-out ratings", settings, note=note)

    def error(network: DeepLinearNetwork) -> float:
        return float(held.loss(*network.factors())) / held.n_measurements

    runner = _Runner(experiment, seen, error, progress, checkpoint)
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


def depth(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Completion with compressed networks of depth 2 and 3."""
    d, rank, width, share, step_size, iterations = (
        (40, 3, 6, 0.5, 20.0, 4_000) if small else (100, 10, 20, 0.3, 50.0, 20_000)
    )
    target = paper_target(d, rank, seed)
    seen, _ = sample_entries(target, share, seed)
    settings = {
        "d": d, "rank": rank, "compressed rank": width, "scale": 1e-2, "step size": step_size, "outer scale": 2.0,
        "share of entries seen": share, "seed": seed,
    }  # fmt: skip
    title = f"Depth: completion of {d} x {d}, rank {rank}, {share:.0%} of the entries seen"
    experiment = Experiment("depth", title, "relative recovery error", settings)
    runner = _Runner(experiment, seen, relative_error(target), progress, checkpoint)
    for layers in (2, 3):
        runner.descend(
            f"compressed, depth {layers}", spectral_network(seen, width, depth=layers), step_size, outer_scale=2.0,
            iterations=iterations, tolerance=1e-12, record_every=50,
        )  # fmt: skip
    return experiment


def alpha(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Completion with 20 % of the entries seen, for outer scales from 0.5 to 9.75."""
    d, rank, width, share, iterations = (40, 2, 4, 0.4, 4_000) if small else (100, 5, 10, 0.2, 20_000)
    step_size = 2.0 if small else 10.0
    scales = np.linspace(0.5, 9.75, 5 if small else 38)
    target = paper_target(d, rank, seed)
    seen, _ = sample_entries(target, share, seed)
    settings = {
        "d": d, "rank": rank, "compressed rank": width, "depth": 3, "scale": 1e-2, "step size": step_size,
        "outer scales": scales.tolist(), "share of entries seen": share, "seed": seed,
    }  # fmt: skip
    title = f"Discrepant rates: completion of {d} x {d}, rank {rank}, {share:.0%} of the entries seen"
    experiment = Experiment("alpha", title, "relative recovery error", settings)
    runner = _Runner(experiment, seen, relative_error(target), progress, checkpoint)
    start = spectral_network(seen, width)
    for scale in scales:
        runner.descend(
            f"outer scale {scale:.2f}", start, step_size, outer_scale=float(scale), iterations=iterations,
            tolerance=1e-12, record_every=50,
        )  # fmt: skip
    return experiment


EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "factorization": factorization,
    "completion": completion,
    "sensing": sensing,
    "movielens": movielens,
    "depth": depth,
    "alpha": alpha,
}


def iterations_to(curve: Curve, level: float) -> float:
    """First recorded iteration at which the error is at or below `level`; NaN if it never is."""
    history = curve.run.history
    below = np.flatnonzero(history["error"] <= level)
    return float(history.iteration[below[0]]) if below.size else math.nan


def draw(experiment: Experiment, path: Path) -> None:
    """Write the figure of an experiment as a PNG."""
    if experiment.name == "alpha":
        scales = experiment.settings["outer scales"]
        panels = [
            (experiment.error, [float(curve.run.history["error"][-1]) for curve in experiment.curves]),
            ("iterations to an error of 1e-2", [iterations_to(curve, 1e-2) for curve in experiment.curves]),
        ]
        plot_sweep(path, experiment.title, "outer scale", scales, panels)
        return
    curves = [(curve.label, curve.run.history) for curve in experiment.curves]
    ratings = experiment.name == "movielens"
    plot_errors(
        path, experiment.title, experiment.error, curves,
        logarithmic=not ratings,
        timed=experiment.name != "factorization",  # the seconds of an exact compression are not those of a wide network
        log_time=ratings,
        limits=(0.4, 0.8) if ratings else (None, None),  # all start near 7, and differ by hundredths in the end
    )  # fmt: skip
