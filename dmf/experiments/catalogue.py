"""Every experiment by its name, and how its result is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dmf.experiments import baselines, overparameterized, paper
from dmf.experiments.movielens import movielens
from dmf.experiments.results import Experiment
from dmf.io.pictures import Panel, plot_errors, plot_overlaps, plot_panels

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "completion": paper.completion,
    "factorization": paper.factorization,
    "sensing": paper.sensing,
    "depth": paper.depth,
    "alpha": paper.alpha,
    "power": paper.power,
    "burer-monteiro": baselines.burer_monteiro,
    "initialisations": baselines.initialisations,
    "compressed-start": overparameterized.compressed_starts,
    "depth-and-width": overparameterized.depth_and_width,
    "movielens": movielens,
}


def _alpha(experiment: Experiment) -> list[Panel]:
    scales, rows = experiment.settings["outer scales"], experiment.rows()
    return [
        Panel(
            "outer scale",
            label,
            {
                "original": ([scales[0], scales[-1]], [rows[0][name]] * 2),
                "compressed": (scales, [row[name] for row in rows[1:]]),
            },
        )
        for name, label in (("iterations", "iterations"), ("seconds", "time (s)"))
    ]


def _depth_and_width(experiment: Experiment) -> list[Panel]:
    shares, widths, rows = (
        experiment.settings["shares of entries seen"],
        experiment.settings["widths"],
        experiment.rows(),
    )
    count = len(shares)
    errors = [row["error"] for row in rows]
    depths = {f"depth {k + 2}": (shares, errors[k * count : (k + 1) * count]) for k in range(2)}
    needed = [curve.iterations for curve in experiment.curves[2 * count :]]
    return [
        Panel("share of entries seen", experiment.error, depths, logarithmic=True),
        Panel("width", "iterations", {"depth 3": (widths, needed)}),
    ]


_PANELS = {"alpha": _alpha, "depth-and-width": _depth_and_width}
_UNTIMED = ("factorization", "burer-monteiro")  # the seconds of an exact compression are not those of a wide network


def draw(experiment: Experiment, path: Path) -> None:
    """Write the figure of an experiment as a PNG."""
    if experiment.name in _PANELS:
        plot_panels(path, experiment.title, _PANELS[experiment.name](experiment))
        return
    curves = [(curve.label, curve.run.history) for curve in experiment.curves]
    if experiment.name == "power":
        names = {"left": "$W_L$, left", "right": "$W_1$, right"}
        plot_overlaps(path, experiment.title, curves, names)
        return
    plot_errors(
        path, experiment.title, experiment.error, curves,
        timed=experiment.name not in _UNTIMED,
    )  # fmt: skip
