"""A report on a completed table: errors of its columns, margins, holes, correlations, and the models that were taken."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from dmf.report.page import check_report_path, write_page

if TYPE_CHECKING:
    from dmf.tables import TableRecovery

_MAIN, _CHOSEN, _QUIET = "#1b6ca8", "#d1495b", "#9aa5b1"
_MOST_COLUMNS = 30  # of a table whose names are written
_MOST_ROWS = 500  # of the picture of holes
_MOST_MARGINS = 8  # columns whose transforms are drawn: those furthest from a straight line


def write_table_report(path: str | os.PathLike, recovery: TableRecovery, *, title: str = "Completed table") -> None:
    """Write error of each column beside that of its mean, margins, missing cells, correlations, and what was chosen.

    Parameters
    ----------
    path : path
        ``.html``: one file that needs no other and runs no scripts; ``.png``: the same as one picture.
    recovery : TableRecovery
    title : str

    Raises
    ------
    FileError
        If the suffix is another one, or the file cannot be written.
    """
    check_report_path(path)
    panels: list[Any] = [(draw_errors, (recovery,)), (draw_margins, (recovery,))]
    if recovery.frame is not None:
        panels += [(draw_holes, (recovery,)), (draw_correlations, (recovery,))]
    first, *lines = recovery.summary().splitlines()
    rows = [("table", first), *(("", line) for line in lines), ("versions", f"dmf {metadata.version('dmf')}")]
    write_page(path, panels, title, rows)


def _names(recovery: TableRecovery) -> list[str]:
    """Of the columns for models: levels of nominal columns have one each."""
    names = []
    for column in recovery.columns:
        levels = [f"{column.name} = {level}" for level in column.levels[: column.width]]
        names += levels if column.one_hot else [str(column.name)]
    return names


def draw_errors(axis: Any, recovery: TableRecovery) -> None:
    """Root-mean-square error of each column on held-out cells, in units of the error of its mean.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : TableRecovery
    """
    held, names = recovery.held_out, _names(recovery)
    errors = np.full(len(names), np.nan)
    for k in range(len(names)):
        own = held.columns == k
        if own.any():
            errors[k] = np.sqrt(np.mean((held.truth - held.predictions)[own] ** 2))
    axis.bar(np.arange(len(names)), np.nan_to_num(errors), color=np.where(errors > 1, _CHOSEN, _MAIN))
    axis.axhline(1, color=_QUIET, linestyle="--", linewidth=1.4, label="mean of the column")
    _named(axis, names)
    axis.set_ylabel("held-out error / standard deviation")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("error of each column", fontsize=10)


def draw_margins(axis: Any, recovery: TableRecovery) -> None:
    """Transforms of the columns in the space of the candidate of most weight.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : TableRecovery
    """
    members = [member for member in recovery.members if member.candidate.space > 0]
    axis.plot([-3, 3], [-3, 3], color=_QUIET, linestyle="--", linewidth=1.4, label="none")
    space = 0.0
    if members:
        best = max(members, key=lambda member: member.weight)
        space, names = best.candidate.space, _names(recovery)
        knots = zip(best.margins.values, best.margins.scores, strict=True)
        bent = [(np.mean(np.abs(v - s)), k, v[1:-1], s[1:-1]) for k, (v, s) in enumerate(knots) if len(v)]
        for _, k, values, scores in sorted(bent, key=lambda one: -one[0])[:_MOST_MARGINS]:
            axis.plot(values, scores, linewidth=1.4, label=names[k])
    axis.set_xlabel("value (standard deviations)")
    axis.set_ylabel("value in the space of the model")
    axis.legend(frameon=False, fontsize=7)
    axis.set_title(f"margins, space {space:g}" if members else "margins: the columns as they are", fontsize=10)


def draw_holes(axis: Any, recovery: TableRecovery) -> None:
    """Missing cells, rows with the same holes together.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : TableRecovery
        With its table.
    """
    assert recovery.frame is not None
    holes = np.isnan(recovery.frame.values)
    holes = holes[np.lexsort(holes.T[::-1])]
    shown = holes[np.linspace(0, len(holes) - 1, min(len(holes), _MOST_ROWS)).astype(int)]
    axis.imshow(shown, aspect="auto", interpolation="nearest", cmap="Greys", vmin=0, vmax=1.4)
    _named(axis, [str(column.name) for column in recovery.columns])
    axis.set_yticks([])
    axis.set_ylabel(f"{len(holes):,} rows")
    axis.set_title(f"missing cells (dark): {holes.mean():.1%}", fontsize=10)


def draw_correlations(axis: Any, recovery: TableRecovery) -> None:
    """Correlations of the columns of the filled table.

    Parameters
    ----------
    axis : matplotlib Axes
    recovery : TableRecovery
        With its table.
    """
    filled = recovery.standardized()
    off = filled - filled.mean(axis=0)
    size = np.sqrt(np.sum(off**2, axis=0))
    off /= np.where(size > 0, size, 1)
    picture = axis.imshow(off.T @ off, cmap="RdBu_r", vmin=-1, vmax=1)
    names = _names(recovery)
    _named(axis, names)
    if len(names) <= _MOST_COLUMNS:
        axis.set_yticks(np.arange(len(names)), names, fontsize=7)
    axis.figure.colorbar(picture, ax=axis, shrink=0.8)
    axis.set_title("correlations of the filled table", fontsize=10)


def _named(axis: Any, names: list[str]) -> None:
    if len(names) <= _MOST_COLUMNS:
        axis.set_xticks(np.arange(len(names)), names, rotation=60, ha="right", fontsize=7)
    else:
        axis.set_xlabel("column")
