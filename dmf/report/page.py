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

import numpy as np

from dmf.arrays.backend import Array, namespace, to_host
from dmf.completion.ranks import RankPath
from dmf.io.messages import number
from dmf.io.pictures import save_figure
from dmf.io.writing import check_suffix, write_text
from dmf.recovery.intervals import check_coverage
from dmf.recovery.results import Recovery
from dmf.report.pictures import draw_coverage, draw_learning, draw_ranks, draw_residuals, draw_spectrum
from dmf.solvers.drift import without_drift

_COVERAGE = 0.9
_FEWEST_FOR_COVERAGE = 40  # held-out entries; below, half of them say nothing
_PACKAGES = ("dmf", "numpy", "scipy", "numba")
_Panel = tuple[Callable[..., None], tuple[Any, ...]]  # what draws, and its arguments after the axes
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th { text-align: left; }
td, th { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td:first-child { color: #666; white-space: nowrap; } td:last-child { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
"""


def check_report_path(path: str | os.PathLike) -> None:
    """Raise FileError unless a report can have this name: its suffix says what is written."""
    check_suffix(path, "report", (".html", ".htm", ".png"))


def write_report(
    path: str | os.PathLike,
    recovery: Recovery,
    facts: Mapping[str, Any],
    ranks: RankPath | None = None,
    *,
    title: str = "Recovered matrix",
) -> None:
    """Write learning curve, spectrum, residuals, coverage of intervals, rank path and a table of results.

    Residuals are those of held-out entries, else of the measurements fitted; coverage needs held-out entries.

    Parameters
    ----------
    path : path
        ``.html``: one file that needs no other and runs no scripts; ``.png``: the same as one picture.
    recovery : Recovery
    facts : mapping of str to object
        What the table says first, such as errors; shape, settings and versions follow by themselves.
    ranks : RankPath, optional
    title : str

    Raises
    ------
    FileError
        If the suffix is another one, or the file cannot be written.
    """
    check_report_path(path)
    panels: list[_Panel] = [(draw_learning, (recovery,)), (draw_spectrum, (recovery,))]
    rows = [(name, number(value)) for name, value in facts.items()]
    observations = recovery.observations
    residuals = None if recovery.heldout is None else recovery.heldout.residuals
    if residuals is not None:
        panels.append((draw_residuals, (residuals, "held-out entries")))
        if to_host(residuals).size >= _FEWEST_FOR_COVERAGE:
            panels.append((draw_coverage, (residuals,)))
            rows.append(("coverage", _coverage(residuals)))
    elif observations is not None and recovery.weighting is None:
        panels.append((draw_residuals, (_left(recovery, observations), "measurements fitted")))
    if ranks is not None:
        panels.append((draw_ranks, (ranks,)))
        rows.append(("rank path", str(ranks)))
    write_page(path, panels, title, [*rows, *_rows(recovery)])


def write_page(path: str | os.PathLike, panels: Sequence[_Panel], title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write pictures and a table: as a page, or as one picture if the suffix is ``.png``.

    Parameters
    ----------
    path : path
    panels : sequence of (callable, arguments)
        What draws on axes, and its arguments after them.
    title : str
    rows : sequence of (str, str)
    """
    if Path(path).suffix.lower() == ".png":
        save_figure(_picture(panels, title, rows), path)
    else:
        write_text(path, _page(panels, title, rows))


def _left(recovery: Recovery, observations: Any) -> Array:
    """What the model leaves of the measurements."""
    if recovery.found.clipped is not None:  # without drift, and hardly with weights
        left = observations.entries - recovery.predicted(observations.product(*recovery.factors()))
        return left if observations.weights is None else namespace(left).sqrt(observations.weights) * left
    rest: Any = observations.minus(*recovery.factors())
    return (rest if recovery.drift is None else without_drift(rest, recovery.drift)).values


def _coverage(residuals: Array) -> str:
    """How the intervals do on entries that they were not calibrated on."""
    shares, errors = check_coverage(residuals, np.array([_COVERAGE]))
    return (
        f"{shares[0]:.1%} +- {errors[0]:.1%} of one half of the held-out entries lie in {_COVERAGE:.0%} intervals "
        "calibrated on the other half"
    )


def _rows(recovery: Recovery) -> list[tuple[str, str]]:
    d1, d2 = recovery.shape
    found, settings = recovery.found, recovery.settings
    noise = "none: the fit is exact" if found.exact else number(found.noise)
    stages = Counter(f"{run.stage} ({run.fit})" for run in recovery.runs)
    return [
        ("shape", f"{d1:,} x {d2:,}"),
        ("rank", str(found.rank)),
        ("noise", noise if recovery.weighting is None else "not estimated: counts say what was chosen, not how much"),
        ("offsets", "of rows and columns" if found.offsets else "none"),
        ("bounds", "none" if recovery.bounds is None else "{:g} to {:g}".format(*recovery.bounds)),
        ("result", recovery.message),
        ("rank bound", "none" if settings.rank is None else str(settings.rank)),
        ("seed", str(settings.seed)),
        ("iterations", f"{recovery.nit:,}"),
        ("runs", ", ".join(f"{name} x {count}" if count > 1 else name for name, count in stages.items()) or "none"),
        ("versions", ", ".join(f"{p} {metadata.version(p)}" for p in _PACKAGES)),
    ]


def write_gallery(
    path: str | os.PathLike,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, tuple[str | os.PathLike, str]],
) -> None:
    """Write a page with one table and PNG files that exist, which it then holds itself.

    Parameters
    ----------
    path : path
    title : str
    rows : sequence of mappings
        Of the table, each with the same columns; one at least.
    pictures : mapping of str to (path, str)
        Title of each picture to its file and a note, which may be empty.
    """
    images = "\n".join(
        f"<h2>{html.escape(name)}</h2>\n{_image(name, Path(file).read_bytes())}"
        + (f"\n<p>{html.escape(note)}</p>" if note else "")
        for name, (file, note) in pictures.items()
    )
    header = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    lines = [header, *("".join(f"<td>{html.escape(number(cell))}</td>" for cell in row.values()) for row in rows)]
    write_text(path, _document(title, lines, images))


def _page(panels: Sequence[_Panel], title: str, rows: Sequence[tuple[str, str]]) -> str:
    cells = [f"<td>{html.escape(name)}</td><td>{html.escape(value)}</td>" for name, value in rows]
    images = "\n".join(_image(name, data) for name, data in _images(panels))
    return _document(title, cells, f"<h2>Pictures</h2>\n{images}")


def _document(title: str, rows: Sequence[str], below: str) -> str:
    """The page with a table of `rows`, whose cells are marked already."""
    table = "\n".join(f"<tr>{cells}</tr>" for cells in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>
<style>{_STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<table>
{table}
</table>
{below}
</body>
</html>
"""


def _image(name: str, png: bytes) -> str:
    return f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'


def _images(panels: Sequence[_Panel]) -> list[tuple[str, bytes]]:
    from matplotlib.figure import Figure

    images = []
    for draw, arguments in panels:
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axis = figure.subplots()
        draw(axis, *arguments)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        images.append((axis.get_title(), buffer.getvalue()))
    return images


def _picture(panels: Sequence[_Panel], title: str, rows: Sequence[tuple[str, str]]) -> Any:
    import textwrap

    from matplotlib.figure import Figure

    columns = (len(panels) + 2) // 2  # in two rows, one place for the table
    figure = Figure(figsize=(6.25 * columns, 8.2), layout="constrained")
    axes = figure.subplots(2, columns).ravel()
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
