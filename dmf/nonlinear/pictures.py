"""Picture of how low-dimensional the updates of a nonlinear network are."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from dmf.io.pictures import save_figure
from dmf.recovery.results import History

_SHOWN = 1e-4  # of the largest singular value; what lies far below is rounding in single precision


def plot_updates(path: str | os.PathLike, title: str, names: Sequence[str], history: History) -> None:
    """Singular values of each weight's update along training, and its energy outside the predicted subspace.

    Parameters
    ----------
    path : path
        PNG file to write.
    title : str
    names : sequence of m str
        Of the weights.
    history : History
        With the columns of `dmf.nonlinear.UpdateDiagnostics`.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    iterations, spectra = history.iteration[1:], history["update_singular_values"][1:]
    colors, shade = colormaps["viridis_r"], Normalize(0, max(1, history.iteration[-1]))
    count = spectra.shape[2]
    figure = Figure(figsize=(2.6 * (len(names) + 1), 3.8), layout="constrained")
    axes = figure.subplots(1, len(names) + 1)
    for k, (axis, name) in enumerate(zip(axes, names, strict=False)):
        axis.sharey(axes[0])
        for iteration, spectrum in zip(iterations, spectra[:, k], strict=True):
            axis.plot(
                np.arange(1, count + 1),
                np.where(spectrum > 0, spectrum, np.nan),
                color=colors(shade(iteration)),
                linewidth=1,
            )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("index")
        axis.tick_params(labelleft=k == 0)
    largest = spectra.max(initial=0)
    if largest > 0:  # nothing moves before the first step
        axes[0].set_yscale("log")
        axes[0].set_ylim(bottom=0.7 * max(_SHOWN * largest, spectra[spectra > 0].min()))
    axes[0].set_ylabel("singular values of the update")
    figure.colorbar(ScalarMappable(shade, colors), ax=axes[len(names) - 1], label="iteration")
    last = axes[-1]
    for k, name in enumerate(names):
        last.plot(iterations, history["energy_outside"][1:, k], label=name, linewidth=1.5)
    last.set_ylim(0, 1)
    last.set_xlabel("iteration")
    last.set_ylabel("energy outside the prediction")
    last.legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
