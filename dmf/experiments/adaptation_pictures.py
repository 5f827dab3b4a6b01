"""Picture of few-sample adaptation: accuracy against the rank of the adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np

from dmf.io.pictures import save_figure

_COLORS = ("#1b6ca8", "#66a182", "#edae49", "#d1495b")
_QUIET = "#55606b"


def plot_adaptation(
    path: str | os.PathLike,
    title: str,
    ranks: Sequence[int],
    panels: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> None:
    """Mean accuracy over seeds against the rank, with standard deviations; one panel for each number of samples.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    ranks : sequence of int
    panels : sequence of (title, mapping of labels to arrays)
        Accuracies, shape (ranks, seeds); with shape (1, seeds) what has no rank, drawn as a horizontal line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.7 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    places = np.arange(len(ranks))
    for axis, (heading, curves) in zip(axes, panels, strict=True):
        ranked = {label: values for label, values in curves.items() if len(values) > 1}
        flat = {label: values for label, values in curves.items() if len(values) == 1}
        for k, (color, (label, values)) in enumerate(zip(cycle(_COLORS), ranked.items(), strict=False)):
            shift = 0.08 * (k - (len(ranked) - 1) / 2)  # so that bars do not hide each other
            axis.errorbar(
                places + shift, values.mean(axis=1), yerr=values.std(axis=1, ddof=1), fmt="o-", color=color, label=label,
                linewidth=1.8, markersize=4, capsize=2, elinewidth=1,
            )  # fmt: skip
        for label, values in flat.items():
            axis.axhline(values.mean(), color=_QUIET, linestyle="--", linewidth=1.4, label=label)
        axis.set_xticks(places, [str(rank) for rank in ranks])
        axis.set_xlabel("rank of the adapter")
        axis.set_title(heading, fontsize=10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy on rotated test images")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
