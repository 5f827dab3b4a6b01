"""A report on one recovery: pictures and numbers in one HTML file without scripts, or in one picture."""

from __future__ import annotations

import base64
import html
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dmf.backend import Array
from dmf.errors import FileError
from dmf.io.archive import write_text
from dmf.plotting import save_figure
from dmf.plotting_recovery import draw_learning, draw_residuals, draw_spectrum
from dmf.results import Recovery

_PACKAGES = ("dmf", "numpy", "scipy", "numba")
_Panel = tuple[Callable[..., None], tuple[Any, ...]]  # what draws, and its arguments after the axes
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td:first-child { color: #666; white-space: nowrap; } td:last-child { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
"""
SUFFIXES = (".html", ".htm", ".png")


def check_report_path(path: str | os.PathLike) -> None:
    """Raise FileError unless a report can have this name: its suffix says what is written."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise FileError(f"cannot write the report {path}: its suffix is {suffix!r}, but a report is .html or .png.")


def write_report(
    path: str | os.PathLike,
    recovery: Recovery,
    facts: Mapping[str, Any],
    residuals: Array | None = None,
    *,
    title: str = "Recovered matrix",
    held_out: bool = True,
) -> None:
    """Write learning curve, spectrum, residuals and a table of results.

    Parameters
    ----------
    path : path
        ``.html``: one file that needs no other and runs no scripts; ``.png``: the same as one picture.
    recovery : Recovery
    facts : mapping of str to object
        What the table says first, such as errors; shape, options and versions follow by themselves.
    residuals : array, shape (n,), optional
        Observed minus predicted values.
    title : str
    held_out : bool
        Whether the residuals are of entries that the model never saw.

    Raises
    ------
    FileError
        If the suffix is another one, or the file cannot be written.
    """
    check_report_path(path)
    panels: list[_Panel] = [(draw_learning, (recovery,)), (draw_spectrum, (recovery,))]
    if residuals is not None:
        panels.append((draw_residuals, (residuals, "held-out entries" if held_out else "training entries")))
    rows = [*((name, _text(value)) for name, value in facts.items()), *_rows(recovery)]
    if Path(path).suffix.lower() == ".png":
        save_figure(_picture(panels, title, rows), path)
    else:
        write_text(path, _page(panels, title, rows))


def _rows(recovery: Recovery) -> list[tuple[str, str]]:
    d1, d2 = recovery.shape
    options = recovery.options
    rows = [
        ("shape", f"{d1:,} x {d2:,}"),
        ("rank", str(options.get("rank", "unknown"))),
        ("noise", "none: the fit is exact" if options.get("exact") else f"{options.get('noise', float('nan')):.4g}"),
        ("offsets", "of rows and columns" if recovery.offsets is not None else "none"),
        ("weights", f"{recovery.network.n_parameters:,} in {recovery.network.depth} layers"),
        ("status", str(recovery.status)),
    ]
    chosen = ("rank_bound", "depth", "seed", "iterations")
    text = ", ".join(f"{name.replace('_', ' ')} {options[name]:,}" for name in chosen if options.get(name) is not None)
    if phases := Counter(options.get("phases", ())):
        text += "; phases " + ", ".join(f"{name} x {count}" if count > 1 else name for name, count in phases.items())
    return [*rows, ("options", text), ("versions", ", ".join(f"{p} {metadata.version(p)}" for p in _PACKAGES))]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _page(panels: Sequence[_Panel], title: str, rows: Sequence[tuple[str, str]]) -> str:
    cells = "\n".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
    images = "\n".join(
        f'<p><img alt="{name}" src="data:image/png;base64,{data}"></p>' for name, data in _images(panels)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>
<style>{_STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<table>
{cells}
</table>
<h2>Pictures</h2>
{images}
</body>
</html>
"""


def _images(panels: Sequence[_Panel]) -> list[tuple[str, str]]:
    from matplotlib.figure import Figure

    images = []
    for draw, arguments in panels:
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axis = figure.subplots()
        draw(axis, *arguments)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        images.append((html.escape(axis.get_title()), base64.b64encode(buffer.getvalue()).decode()))
    return images


def _picture(panels: Sequence[_Panel], title: str, rows: Sequence[tuple[str, str]]) -> Any:
    import textwrap

    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 8.2), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for axis, (draw, arguments) in zip(axes, panels, strict=False):
        draw(axis, *arguments)
    lines = []
    for name, value in rows:
        first, *more = textwrap.wrap(value, 62) or [""]
        lines += [f"{name:<14} {first}", *(f"{'':<14} {line}" for line in more)]
    table = axes[len(panels)]
    table.text(0, 1, "\n".join(lines), family="monospace", fontsize=8.5, va="top", transform=table.transAxes)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    figure.suptitle(title, fontsize=13)
    return figure
