"""Every experiment by its name, and how its result is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dmf.experiments import baselines, paper
from dmf.experiments.movielens import movielens
from dmf.experiments.results import Experiment
from dmf.io.pictures import plot_errors, plot_overlaps, plot_sweep

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "completion": paper.completion,
    "factorization": paper.factorization,
    "sensing": paper.sensing,
    "depth": paper.depth,
    "alpha": paper.alpha,
    "power": paper.power,
    "burer-monteiro": baselines.burer_monteiro,
    "initialisations": baselines.initialisations,
    "movielens": movielens,
}
_UNTIMED = ("factorization", "burer-monteiro")  # the seconds of an exact compression are not those of a wide network


def draw(experiment: Experiment, path: Path) -> None:
    """Write the figure of an experiment as a PNG."""
    if experiment.name == "alpha":
        original, *swept = experiment.curves
        panels = [
            ("iterations", original.iterations, [curve.iterations for curve in swept]),
            ("time (s)", original.row()["seconds"], [curve.row()["seconds"] for curve in swept]),
        ]
        scales = experiment.settings["outer scales"]
        plot_sweep(path, experiment.title, "outer scale", scales, "original", "compressed", panels)
        return
    curves = [(curve.label, curve.run.history) for curve in experiment.curves]
    if experiment.name == "power":
        names = {"left": "$W_L$, left", "right": "$W_1$, right"}
        plot_overlaps(path, experiment.title, curves, names)
        return
    ratings = experiment.name == "movielens"
    plot_errors(
        path, experiment.title, experiment.error, curves,
        logarithmic=not ratings,
        timed=experiment.name not in _UNTIMED,
        log_time=ratings,
        limits=(0.4, 0.8) if ratings else (None, None),  # all start near 7, and differ by hundredths in the end
    )  # fmt: skip
