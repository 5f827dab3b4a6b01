"""How the original and the compressed network learn one problem: runs, theory beside them, and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.checks import check_choice
from dmf.errors import ArgumentError
from dmf.experiments.problems import gaussian_measurements, paper_target, sample_entries
from dmf.io.pictures import plot_errors
from dmf.models import balanced_network, orthogonal_network, spectral_network
from dmf.observations import FullMatrix, Observations
from dmf.solvers import Run, Snapshot, gradient_descent, largest_curvature
from dmf.solvers.outcomes import uninterrupted
from dmf.theory import Diagnostics, compare, learning_times
from dmf.theory.pictures import plot_alignment, plot_layer_spectra, plot_learning_times, plot_singular_values

PROBLEMS = ("factorization", "completion", "sensing")
_RECORDS = 200
_LEARNED = 0.5  # share of its singular value at which a component counts as learned


@dataclass(frozen=True)
class Dynamics:
    """Both runs of one problem, with diagnostics in their histories, and the predicted times.

    Attributes
    ----------
    settings : dict
    singular_values : array, shape (r,)
        Of the target.
    original, compressed : Run
    before : dict of str to lists of arrays
        Singular values of the layers at the start.
    predicted : array, shape (r,)
        Iterations at which the flow of a fully observed matrix reaches half of each singular value.
    """

    problem: str
    settings: dict[str, Any]
    singular_values: np.ndarray
    original: Run
    compressed: Run
    before: dict[str, list[np.ndarray]]
    predicted: np.ndarray

    def runs(self) -> dict[str, Run]:
        """Both runs by name."""
        return {"original": self.original, "compressed": self.compressed}

    def rows(self) -> list[dict[str, Any]]:
        """One table row for each component: predicted and measured iterations."""
        measured = {name: measured_times(run, self.singular_values) for name, run in self.runs().items()}
        return [
            {"component": k + 1, "singular value": float(value), "predicted": float(self.predicted[k])}
            | {name: float(times[k]) for name, times in measured.items()}
            for k, value in enumerate(self.singular_values)
        ]

    def ordering(self) -> str:
        """Whether the compressed network was ahead at every iteration, and whether learning was incremental."""
        return str(compare(self.original, self.compressed, self.singular_values))

    def as_json(self) -> dict[str, Any]:
        """Settings, table, ordering and histories, as JSON holds them."""
        histories = {
            name: {column: np.asarray(values).tolist() for column, values in run.history.items()}
            for name, run in self.runs().items()
        }
        return {
            "problem": self.problem,
            "settings": self.settings,
            "table": self.rows(),
            "ordering": self.ordering(),
            "histories": histories,
        }


def dynamics(
    problem: str,
    rank: int = 3,
    size: int = 60,
    depth: int = 3,
    scale: float = 0.05,
    seed: int = 0,
    progress: Callable[[str, Snapshot], None] | None = None,
) -> Dynamics:
    """Train both networks on one problem, from starts of one scale, with one step, and measure how they learn.

    Parameters
    ----------
    problem : {"factorization", "completion", "sensing"}
        Completion sees half of the entries; sensing takes 6 Gaussian measurements for each degree of freedom.
    rank : int, 1 <= rank < size / 2
        Of the target; the compressed network has twice this width.
    size : int
        Rows and columns.
    depth : int, >= 2
    scale : float, > 0
        Of the layers, relative to ``s_1^(1/depth)``.
    seed : int
    progress : callable, optional
        Called with the name of the run and a `Snapshot`.

    Returns
    -------
    Dynamics

    Raises
    ------
    ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), figures 2 and 3.
    """
    check_choice("problem", problem, PROBLEMS)
    if not 1 <= rank < size / 2:
        raise ArgumentError(
            f"rank={rank} and size={size}, but the passive subspaces need 1 <= rank < size / 2 = {size / 2:g}. Take a "
            "smaller rank or a larger size.",
            argument="rank",
            value=rank,
            limit=(1, size / 2),
        )
    target = paper_target(size, rank, seed, "even")  # well separated, so that one sees them one at a time
    u, s, vt = (part[..., :rank] if k == 0 else part[:rank] for k, part in enumerate(np.linalg.svd(target)))
    observations, unit = _observe(problem, target, rank, seed)
    eps = scale * s[0] ** (1 / depth)
    reduction = "sum" if problem == "sensing" else "mean"
    step_size = 0.5 / largest_curvature(observations, balanced_network(u, s, vt, depth), reduction=reduction)
    predicted = learning_times(s, depth, eps, step_size * unit)
    iterations = math.ceil(1.6 * predicted[-1])
    settings = {
        "rank": rank, "size": size, "depth": depth, "scale of the layers": eps, "step size": step_size,
        "reduction": reduction, "iterations": iterations, "compressed rank": 2 * rank, "seed": seed,
    }  # fmt: skip
    starts = {
        "original": orthogonal_network(target.shape, depth, eps, seed=seed),
        "compressed": spectral_network(observations, 2 * rank, depth, eps, seed),
    }
    runs, before = {}, {}
    for name, start in starts.items():
        diagnose = Diagnostics(count=2 * rank, target=(u, s, vt))

        def callback(snapshot: Snapshot, name=name, diagnose=diagnose) -> Any:
            if progress is not None:
                progress(name, snapshot)
            return diagnose(snapshot)

        before[name] = [np.linalg.svd(w, compute_uv=False) for w in start.weights]
        run = gradient_descent(
            observations, start, step_size, reduction=reduction, iterations=iterations,
            record_every=max(1, iterations // _RECORDS), callback=callback,
            exact_compression=name == "original" and problem == "factorization",
        )  # fmt: skip
        runs[name] = uninterrupted(run)
    return Dynamics(problem, settings, s, runs["original"], runs["compressed"], before, predicted)


def _observe(problem: str, target: np.ndarray, rank: int, seed: int) -> tuple[Observations, float]:
    """Observations of the target, and the factor that makes a step on their loss a step on the whole square error."""
    if problem == "factorization":
        return FullMatrix(target), 1 / target.size
    if problem == "completion":
        return sample_entries(target, 0.5, seed)[0], 1 / target.size
    count = 6 * rank * (sum(target.shape) - rank)
    return gaussian_measurements(target, count, seed), 1 / count


def measured_times(run: Run, singular_values: np.ndarray) -> np.ndarray:
    """First recorded iteration at which each component has reached half of its singular value; infinity if it never has."""
    reached = run.history["singular_values"][:, : len(singular_values)] >= _LEARNED * singular_values
    return np.where(reached.any(axis=0), run.history.iteration[reached.argmax(axis=0)], np.inf)


def picture_paths(problem: str, folder: Path) -> dict[str, Path]:
    """Where `draw_dynamics` puts each picture, by its name."""
    of_runs = [f"{kind}-{name}" for name in ("original", "compressed") for kind in ("spectrum", "alignment", "layers")]
    return {name: folder / f"dynamics-{problem}-{name}.png" for name in (*of_runs, "error", "times")}


def draw_dynamics(result: Dynamics, folder: Path) -> None:
    """Write the pictures of a result as PNG files into `folder`."""
    paths = picture_paths(result.problem, folder)
    title = f"{result.problem.capitalize()}, {result.settings['size']} x {result.settings['size']}"
    for name, run in result.runs().items():
        history, label = run.history, f"{title}, {name} network"
        plot_singular_values(paths[f"spectrum-{name}"], label, history.iteration, history["singular_values"])
        overlaps = history["left_overlap"], history["right_overlap"]
        plot_alignment(paths[f"alignment-{name}"], label, history.iteration, *overlaps)
        after = [np.linalg.svd(w, compute_uv=False) for w in run.network.weights]
        plot_layer_spectra(paths[f"layers-{name}"], label, result.before[name], after)
    curves = [(name, run.history) for name, run in result.runs().items()]
    plot_errors(paths["error"], title, "relative error", curves)
    times = [
        (name, result.predicted, measured_times(run, result.singular_values)) for name, run in result.runs().items()
    ]
    plot_learning_times(paths["times"], title, result.singular_values, times)
