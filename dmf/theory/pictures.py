"""Pictures of how a network learns: waterfalls of spectra and alignment, layer spectra, learning times."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, to_host
from dmf.errors import ShapeError
from dmf.io.pictures import save_figure

_BEFORE, _AFTER = "#9aa5b1", "#1b6ca8"
_MOST_RECORDS = 400  # of a ribbon; more are not seen and make the picture slow
_MOST_TICKS = 8  # labelled one by one


def plot_singular_values(
    path: str | os.PathLike, title: str, iteration: Array, values: Array, label: str = "singular value"
) -> None:
    """Waterfall in three dimensions: each singular value of the end-to-end matrix over the iterations.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    iteration : array, shape (n,), ascending
    values : array, shape (n, k)
        Column "singular_values" of a history, or `CompressedTrajectory.singular_values`.
    label : str
        Of the vertical axis.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), figures 2 and 3.
    """
    _draw_waterfalls(path, title, (6.4, 4.4), iteration, {"": values}, label, right=0.96, top=1.0)


def plot_alignment(path: str | os.PathLike, title: str, iteration: Array, left: Array, right: Array) -> None:
    """Waterfalls of the alignment of left and of right singular vectors with those of the target.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    iteration : array, shape (n,), ascending
    left, right : arrays, shape (n, k), from 0 to 1
        Columns "left_overlap" and "right_overlap" (vector by vector), or "left_alignment" and "right_alignment" (with the
        subspaces), of a run with `dmf.theory.Diagnostics`.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), figures 2 and 3.
    """
    panels = {"left singular vectors": left, "right singular vectors": right}
    _draw_waterfalls(path, title, (11.0, 4.2), iteration, panels, "alignment", 1.0, right=0.97, top=0.9, wspace=0.02)


def plot_layer_spectra(path: str | os.PathLike, title: str, before: Sequence[Array], after: Sequence[Array]) -> None:
    """Singular values of every layer before and after training, one panel for each layer.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    before, after : sequences of L arrays, shapes (n_l,)
        Singular values, descending; zeros are drawn at the bottom.

    Raises
    ------
    ShapeError
        If the numbers of layers or values differ.

    References
    ----------
    .. [1] Yaras et al., 2023 (arXiv 2306.01154), figure 1.
    """
    from matplotlib.figure import Figure

    pairs = [(to_host(one), to_host(two)) for one, two in zip(before, after, strict=False)]
    if len(before) != len(after) or not pairs or any(one.shape != two.shape or one.ndim != 1 for one, two in pairs):
        raise ShapeError(
            f"before and after hold spectra of shapes {[tuple(b.shape) for b in before]} and "
            f"{[tuple(a.shape) for a in after]}, but each layer has one vector of values in both.",
            argument="before, after",
        )
    figure = Figure(figsize=(max(2.9 * len(pairs), 4.5), 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(pairs), sharey=True))
    for layer, (axis, (one, two)) in enumerate(zip(panels, pairs, strict=True), start=1):
        index = np.arange(1, len(one) + 1)
        axis.plot(index, one, "-", color=_BEFORE, linewidth=4, solid_capstyle="round", label="before")
        axis.plot(index, two, "o", color=_AFTER, markersize=4, label="after", alpha=0.85)
        axis.set_title(f"$W_{{{layer}}}$", fontsize=10)
        axis.set_xlabel("index")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("singular value")
    panels[-1].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_learning_times(
    path: str | os.PathLike,
    title: str,
    singular_values: Array,
    curves: Sequence[tuple[str, Array, Array]],
) -> None:
    """Iteration at which each component is learned, predicted (lines) and measured (points).

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    singular_values : array, shape (k,), > 0
    curves : sequence of (label, predicted, measured), arrays of shape (k,)
        Such as `dmf.theory.learning_times` with the methods "flow" and "exact", one pair for each scale of the start. Times
        that are 0 or infinite are left out.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    from matplotlib.figure import Figure

    values = to_host(singular_values)
    order = np.argsort(values)
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axis: Any = figure.subplots()
    for color, (label, *times) in zip(_shades(len(curves)), curves, strict=True):
        predicted, measured = (np.asarray(to_host(t), float) for t in times)
        if predicted.shape != values.shape or measured.shape != values.shape:
            raise ShapeError(
                f"{label} has times of shapes {predicted.shape} and {measured.shape}, but there are {values.size} "
                "singular values.",
                argument="curves",
                value=(predicted.shape, measured.shape),
                limit=values.shape,
            )
        predicted, measured = (np.where(np.isfinite(t) & (t > 0), t, np.nan) for t in (predicted, measured))
        axis.plot(values[order], predicted[order], "-", color=color, linewidth=1.8, label=label)
        axis.plot(values, measured, "o", color=color, markersize=6, markerfacecolor="white", markeredgewidth=1.6)
    axis.plot([], [], "-", color="0.3", label="predicted")
    axis.plot([], [], "o", color="0.3", markerfacecolor="white", markeredgewidth=1.6, label="measured")
    axis.set_xscale("log")
    axis.set_yscale("log")
    if values.size <= _MOST_TICKS:
        axis.set_xticks(values, [f"{v:.3g}" for v in values])
        axis.set_xticks([], minor=True)
    axis.set_xlabel("singular value of the target")
    axis.set_ylabel("learned at iteration")
    axis.grid(alpha=0.3, which="both")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def _draw_waterfalls(
    path: str | os.PathLike,
    title: str,
    size: tuple[float, float],
    iteration: Array,
    panels: Mapping[str, Array],
    label: str,
    ceiling: float | None = None,
    **margins: float,
) -> None:
    """Waterfalls side by side, one for each heading and table in `panels`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    for position, (heading, values) in enumerate(panels.items(), start=1):
        axis: Any = figure.add_subplot(1, len(panels), position, projection="3d")
        _waterfall(axis, *_checked(iteration, values), label, ceiling)
        axis.set_title(heading, fontsize=10, y=1.0)
    figure.suptitle(title, fontsize=11)
    figure.subplots_adjust(left=0.0, bottom=0.02, **margins)
    save_figure(figure, path)


def _waterfall(axis: Any, iteration: np.ndarray, values: np.ndarray, label: str, ceiling: float | None) -> None:
    """One ribbon along the iterations for each column of `values`, the first at the back."""
    from matplotlib.colors import to_rgba
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    count = values.shape[1]
    ceiling = ceiling or max(float(values.max()), 1e-300)
    for k, color in enumerate(_shades(count)):
        place = np.full(len(iteration), float(k + 1))
        curve = np.column_stack([iteration, place, values[:, k]])
        floor = np.column_stack([iteration, place, np.zeros(len(iteration))])[::-1]
        # Later components stand in front; without explicit orders matplotlib sorts by centres and gets it wrong.
        ribbon = Poly3DCollection([np.concatenate([curve, floor])], facecolors=[to_rgba(color, 0.35)], zorder=2 * k)
        axis.add_collection3d(ribbon)
        axis.plot(*curve.T, color=color, linewidth=1.6, zorder=2 * k + 1)
    axis.computed_zorder = False
    axis.set_xlim(iteration[0], max(iteration[-1], iteration[0] + 1))
    axis.set_ylim(count + 0.6, 0.4)
    axis.set_zlim(0, 1.02 * ceiling)
    axis.set_yticks(np.arange(1, count + 1, max(1, -(-count // 10))))
    axis.set_xlabel("iteration", labelpad=8)
    axis.set_ylabel("component", labelpad=6)
    axis.set_zlabel(label, labelpad=4)
    axis.tick_params(labelsize=8)
    axis.xaxis.get_major_locator().set_params(nbins=5)
    for each in (axis.xaxis, axis.yaxis, axis.zaxis):
        each.set_pane_color((1, 1, 1, 0))
        each._axinfo["grid"].update(color=(0.85, 0.85, 0.85, 1), linewidth=0.6)
    axis.set_box_aspect((1.5, 1.15, 0.85), zoom=1.08)
    axis.view_init(elev=24, azim=-62)


def _checked(iteration: Array, values: Array) -> tuple[np.ndarray, np.ndarray]:
    """Iterations (n,) and values (n, k) on the host, thinned to what can be seen."""
    steps, table = to_host(iteration), to_host(values)
    if steps.ndim != 1 or table.ndim != 2 or table.shape[0] != steps.shape[0] or not table.size:
        raise ShapeError(
            f"iteration has shape {steps.shape} and the values {table.shape}, but they are a vector (n,) and a table (n, k).",
            argument="iteration, values",
            value=(steps.shape, table.shape),
        )
    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_RECORDS)).round().astype(int))
    return steps[kept].astype(float), table[kept].astype(float)


def _shades(count: int) -> list[Any]:
    """Colours from dark to light of a map whose order is seen in grey as well."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.08, 0.82, max(count, 1))]
