"""Pictures of what a recovery found: error against rank, learning curve, spectrum, held-out residuals."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dmf.backend import Array, to_host
from dmf.linalg import factored_svd
from dmf.plotting import save_figure
from dmf.rank_path import RankPath
from dmf.results import Recovery

_MAIN, _CHOSEN, _QUIET = "#1b6ca8", "#d1495b", "#9aa5b1"
_PHASES = {"noise": "#f3f6f9", "refine": "#e6f2ea", "continue": "#fbf3e0"}
_MOST_VALUES = 30  # of a spectrum


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
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.2, 4.0), layout="constrained")
    axis: Any = figure.subplots()
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
    else:
        axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axis, "bound on the rank", "root-mean-square error")
    axis.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def draw_learning(axis: Any, recovery: Recovery) -> None:
    """Training loss and noise level, as standard deviations in the units of the data, over the iterations.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : Recovery
    """
    from matplotlib.ticker import MaxNLocator

    history = recovery.history
    # A phase starts anew where the one before ended; positions of records keep both visible.
    steps = np.asarray(history.iteration, float)
    # The loss of every solver is half the mean square of what is left.
    curves = {"residual of the fit": (np.sqrt(2 * np.maximum(history.loss, 0)), _MAIN)}
    if "noise" in history:
        curves["estimated noise"] = (np.asarray(history["noise"], float), _CHOSEN)
    phase = np.asarray(history["phase"]) if "phase" in history else np.zeros(len(steps), int)
    names = recovery.options.get("phases") or [""]
    for number in np.unique(phase):
        inside = steps[phase == number]
        name = names[int(number)] if int(number) < len(names) else ""
        if len(np.unique(phase)) > 1:
            axis.axvspan(inside[0], inside[-1], color=_PHASES.get(name, "#f3f6f9"), zorder=0, linewidth=0)
    lowest = np.inf
    for label, (values, color) in curves.items():
        shown = np.where(values > 0, values, np.nan)
        axis.plot(steps, shown, "-", color=color, linewidth=1.8, marker=".", markersize=4, label=label)
        lowest = min(lowest, np.nanmin(shown, initial=np.inf))
    if np.isfinite(lowest):
        axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _finish(axis, "iteration", "standard deviation (units of the data)")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("learning curve" + _phase_text(names), fontsize=10)


def _phase_text(names: list[str]) -> str:
    runs = [name for k, name in enumerate(names) if name and (k == 0 or names[k - 1] != name)]
    return f" (phases: {', '.join(runs)})" if 1 < len(runs) <= 5 else ""


def draw_spectrum(axis: Any, recovery: Recovery) -> None:
    """Singular values of the network, and of the whole model where offsets are part of it.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : Recovery
    """
    from matplotlib.ticker import MaxNLocator

    parts = {"low-rank part": (recovery.network.factors(), "o", _MAIN)}
    if recovery.offsets is not None:
        parts["with offsets"] = (recovery.factors(), "D", _QUIET)
    for label, (factors, marker, color) in parts.items():
        values = to_host(factored_svd(*factors)[1])[:_MOST_VALUES]
        values = values[values > 1e-12 * max(values.max(initial=0), 1e-300)]
        axis.plot(
            np.arange(1, len(values) + 1), values, marker, color=color, markersize=6, label=label,
            markerfacecolor="white" if marker == "D" else color, zorder=3 if marker == "o" else 2,
        )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.margins(x=0.08)
    axis.set_ylim(bottom=0)
    _finish(axis, "index", "singular value")
    if len(parts) > 1:
        axis.legend(frameon=False, fontsize=8)
    axis.set_title(f"spectrum (rank {recovery.options.get('rank', recovery.network.widths)})", fontsize=10)


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


def _finish(axis: Any, horizontal: str, vertical: str) -> None:
    axis.set_xlabel(horizontal)
    axis.set_ylabel(vertical)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
