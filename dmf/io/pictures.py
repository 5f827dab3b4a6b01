"""Pictures of runs. Drawn without a display and written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from dmf.io.writing import write_atomically

_COLORS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#6a4c93")
_LINES = tuple((color, line) for line in ("-", "--", ":") for color in _COLORS)  # one for each curve of a picture
_MOST_INSIDE = 3  # curves whose legend has room among them
_FLOOR = 1e-17  # zeros cannot be drawn on a logarithmic axis


def save_figure(figure, path: str | os.PathLike) -> None:
    """Write a matplotlib figure to `path` as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def plot_errors(
    path: str | os.PathLike,
    title: str,
    error: str,
    curves: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    logarithmic: bool = True,
    timed: bool = True,
    limits: tuple[float | None, float | None] = (None, None),
    column: str = "error",
) -> None:
    """Error against iteration and against seconds, side by side, as in the paper's figures.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    error : str
        What the history column measures; the label of the vertical axis.
    curves : sequence of (label, history), a history being a mapping of column names to arrays
    logarithmic : bool
        Whether the error has a logarithmic axis.
    timed : bool
        Whether to draw the error against seconds; without it there is one panel.
    limits : (float or None, float or None)
        Lowest and highest error shown; None for those of the curves.
    column : str
        Of the histories.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    labels = {"iteration": "iteration", "seconds": "time (s)"} if timed else {"iteration": "iteration"}
    inside = len(curves) <= _MOST_INSIDE
    figure = Figure(figsize=((9.5 if timed else 6) + (0 if inside else 2.5), 3.8), layout="constrained")
    axes = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for axis, (clock, label) in zip(axes, labels.items(), strict=True):
        for (color, line), (name, history) in zip(cycle(_LINES), curves, strict=False):
            errors = np.maximum(history[column], _FLOOR)
            axis.plot(history[clock], errors, line, color=color, label=name, linewidth=2)
            axis.plot(history[clock][-1:], errors[-1:], "o", color=color, markersize=5)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if logarithmic:
            axis.set_yscale("log")
    axes[0].xaxis.set_major_locator(MaxNLocator(6))
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0].set_ylim(*limits)
    axes[0].set_ylabel(error)
    if inside:
        axes[0].legend(frameon=False)
    else:
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right center")
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


@dataclass(frozen=True)
class Panel:
    """Lines against one parameter: `lines` maps a label to two sequences of numbers; NaN leaves a gap."""

    horizontal: str
    vertical: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    logarithmic: bool = False


def plot_panels(path: str | os.PathLike, title: str, panels: Sequence[Panel]) -> None:
    """Panels side by side, into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.75 * len(panels), 3.8), layout="constrained")
    for axis, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for color, (label, (values, numbers)) in zip(_COLORS, panel.lines.items(), strict=False):
            axis.plot(values, numbers, "o-", color=color, label=label, linewidth=2, markersize=4)
        if panel.logarithmic:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.set_xlabel(panel.horizontal)
        axis.set_ylabel(panel.vertical)
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_overlaps(
    path: str | os.PathLike,
    title: str,
    curves: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    names: Mapping[str, str],
) -> None:
    """Columns of histories between 0 and 1 against the iteration, one panel for each run.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    curves : sequence of (label, history)
    names : mapping of str to str
        The columns, and what the legend calls them.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(4.75 * len(curves), 3.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    for axis, (label, history) in zip(axes, curves, strict=True):
        for color, (column, name) in zip(_COLORS, names.items(), strict=False):
            axis.plot(history["iteration"], history[column], color=color, label=name, linewidth=2)
        axis.set_title(label, fontsize=10)
        axis.set_xlabel("iteration")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("overlap with the target's")
    axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
