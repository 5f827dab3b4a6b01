"""Pictures of what a recovery found: error against rank, learning curve, spectrum, held-out residuals."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, to_host
from dmf.completion.ranks import RankPath
from dmf.io.pictures import save_figure
from dmf.models import LowRank
from dmf.recovery.intervals import check_coverage
from dmf.recovery.results import Recovery

_MAIN, _CHOSEN, _QUIET = "#1b6ca8", "#d1495b", "#9aa5b1"
_STAGES = {"noise": "#e8eef4", "refine": "#d9eddf", "continue": "#fbf0d5"}
_OTHER_STAGE = "#eeeeee"
_FEW_RECORDS = 80  # of a curve, so that each is marked
_MOST_VALUES = 30  # of a spectrum
_WIDE_SPECTRUM = 20  # largest over smallest value, beyond which small ones are not seen on a linear axis


def plot_rank_path(path: str | os.PathLike, title: str, ranks: RankPath) -> None:
    """Held-out and training error against the bound on the rank, the chosen rank marked.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    ranks : RankPath
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.0), layout="constrained")
    draw_ranks(figure.subplots(), ranks)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def draw_ranks(axis: Any, ranks: RankPath) -> None:
    """Held-out and training error against the bound on the rank, the chosen rank marked.

    Parameters
    ----------
    axis : matplotlib Axes
    ranks : RankPath
    """
    from matplotlib.ticker import MaxNLocator

    bounds = [step.rank for step in ranks.steps]
    errors = [step.heldout_rmse for step in ranks.steps]
    spread = [step.standard_error for step in ranks.steps]
    axis.plot(bounds, [step.train_rmse for step in ranks.steps], "--", color=_QUIET, linewidth=1.6, label="training")
    axis.errorbar(
        bounds, errors, yerr=spread, fmt="o-", color=_MAIN, linewidth=2, markersize=5, capsize=3,
        label="held out, with one standard error",
    )  # fmt: skip
    chosen = ranks.steps[ranks.best]
    label = f"chosen: rank {ranks.best}"
    axis.plot(
        [chosen.rank], [chosen.heldout_rmse], "o", markersize=13, markerfacecolor="none", markeredgecolor=_CHOSEN,
        markeredgewidth=2, linestyle="none", label=label,
    )  # fmt: skip
    everything = [*errors, *(step.train_rmse for step in ranks.steps)]
    if 0 < min(everything) < max(everything) / 100:
        axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axis, "bound on the rank", "root-mean-square error")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("error against rank", fontsize=10)


def draw_learning(axis: Any, recovery: Recovery) -> None:
    """Residual of the fit and noise level over the iterations, as standard deviations; the runs of the last fit shaded.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : Recovery
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    history, runs = recovery.history, recovery.runs
    iteration = np.asarray(history.iteration, float)
    # The loss of every solver is half the mean square of what is left.
    curves = [("residual of the fit", np.sqrt(2 * np.maximum(history.loss, 0)), _MAIN, "-")]
    if "noise" in history:
        curves.append(("noise level", np.asarray(history["noise"], float), _CHOSEN, "--"))
    number = np.asarray(history["run"]) if "run" in history else np.zeros(len(iteration), int)
    shown_runs = [k for k, run in enumerate(runs) if run.fit == runs[-1].fit] or [0]
    names = [runs[k].stage for k in shown_runs] if runs else []
    parts = [np.flatnonzero(number == k) for k in shown_runs]
    iteration = iteration - iteration[parts[0][0]]
    marker = "." if len(iteration) < _FEW_RECORDS else ""
    positive = []
    for label, values, color, style in curves:
        shown = np.where(values > 0, values, np.nan)
        positive += shown[np.isfinite(shown)].tolist()
        for k, part in enumerate(parts):  # a run starts anew, so that lines do not join
            axis.plot(
                iteration[part], shown[part], style, color=color, linewidth=1.8, marker=marker, markersize=5,
                label=label if k == 0 else None,
            )  # fmt: skip
    handles = axis.get_legend_handles_labels()[0]
    if len(set(names)) > 1:
        for name, part in zip(names, parts, strict=False):
            color = _STAGES.get(name, _OTHER_STAGE)
            axis.axvspan(iteration[part[0]], iteration[part[-1]], color=color, zorder=0, linewidth=0)
        handles += [
            Patch(facecolor=_STAGES.get(name, _OTHER_STAGE), edgecolor="0.6", label=f"stage: {name}")
            for name in dict.fromkeys(names)
        ]
    if positive and min(positive) < max(positive) / 10:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _finish(axis, "iteration", "standard deviation (units of the data)")
    axis.legend(handles=handles, frameon=False, fontsize=8)
    axis.set_title("learning curve", fontsize=10)


def draw_spectrum(axis: Any, recovery: Recovery) -> None:
    """Singular values of the low-rank part, and of the whole model where offsets are part of it.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : Recovery
    """
    from matplotlib.ticker import MaxNLocator

    parts = {"low-rank part": (recovery.model.s, "o", _MAIN)}
    if recovery.offsets is not None:
        parts["with offsets"] = (LowRank.of_factors(*recovery.factors()).s, "D", _QUIET)
    shown: list[float] = []
    for label, (singular_values, marker, color) in parts.items():
        values = to_host(singular_values)[:_MOST_VALUES]
        values = values[values > 1e-12 * max(values.max(initial=0), 1e-300)]
        shown += values.tolist()
        axis.plot(
            np.arange(1, len(values) + 1), values, marker, color=color, markersize=6, label=label,
            markerfacecolor="white" if marker == "D" else color, zorder=3 if marker == "o" else 2,
        )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.margins(x=0.08)
    if shown and min(shown) < max(shown) / _WIDE_SPECTRUM:
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1.1 * max(shown, default=0.0) or 1)
    _finish(axis, "index", "singular value")
    if len(parts) > 1:
        axis.legend(frameon=False, fontsize=8)
    axis.set_title(f"spectrum (rank {recovery.found.rank})", fontsize=10)


def draw_residuals(axis: Any, residuals: Array, name: str) -> None:
    """Histogram of residuals, beside the normal distribution of the same spread.

    Parameters
    ----------
    axis : matplotlib Axes
    residuals : array, shape (n,)
    name : str
        What they are residuals of, such as "held-out entries".
    """
    values = to_host(residuals).astype(float)
    rmse = float(np.sqrt(np.mean(values**2)))
    # A few far ones would leave one bar; they are counted in the last bars.
    reach = float(np.clip(np.abs(values).max(initial=0), 0, 5 * rmse)) or 1.0
    bars = int(np.clip(np.sqrt(values.size), 9, 41)) | 1  # odd: one bar around zero
    axis.hist(np.clip(values, -reach, reach), bins=np.linspace(-reach, reach, bars + 1), color=_MAIN, alpha=0.75)
    if rmse > 0:
        x = np.linspace(-reach, reach, 200)
        width = 2 * reach / bars
        normal = np.exp(-0.5 * (x / rmse) ** 2) / (rmse * np.sqrt(2 * np.pi))
        axis.plot(x, values.size * width * normal, color=_CHOSEN, linewidth=1.6, label=f"normal, deviation {rmse:.3g}")
        axis.legend(frameon=False, fontsize=8)
        axis.set_ylim(top=1.25 * axis.get_ylim()[1])
    _finish(axis, "observed - predicted (units of the data)", "number of entries")
    axis.set_title(f"residuals of {values.size:,} {name}", fontsize=10)


def draw_coverage(axis: Any, residuals: Array) -> None:
    """Share of held-out entries within intervals calibrated on others, against the share claimed.

    Parameters
    ----------
    axis : matplotlib Axes
    residuals : array, shape (n,)
        Of entries held out.
    """
    claimed = np.linspace(0.02, 0.98, 49)
    shares, errors = check_coverage(residuals, claimed)
    axis.fill_between(
        claimed, claimed - 2 * errors, claimed + 2 * errors, color=_QUIET, alpha=0.3, linewidth=0,
        label="claimed, with two standard errors",
    )  # fmt: skip
    axis.plot(claimed, shares, color=_MAIN, linewidth=1.8, label="found")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    _finish(axis, "coverage claimed", "coverage found")
    axis.legend(frameon=False, fontsize=8)
    count = to_host(residuals).size
    axis.set_title(f"intervals from {count // 2:,} held-out entries, on {count - count // 2:,} others", fontsize=10)


def _finish(axis: Any, horizontal: str, vertical: str) -> None:
    axis.set_xlabel(horizontal)
    axis.set_ylabel(vertical)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
