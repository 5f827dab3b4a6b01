"""dmf complete for tables whose columns have units of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import dmf
from dmf.io.arrow import KeptColumns
from dmf.io.filling import Text
from dmf.io.formats import KeptArray
from dmf.io.messages import listed
from dmf.io.reading import Entries, Matrix
from dmf.io.words import Words, with_words
from dmf.io.writing import json_text
from dmf_cli.common import column_rows, emit, report_path, save, table
from dmf_cli.filling import kept_text, write_filled
from dmf_cli.progress import Progress
from dmf_cli.solving import begin


def is_table(source: Entries | Matrix, layout: str, matrix_options: Mapping[str, Any], reasons: list[str]) -> bool:
    """Whether a file is completed as a table, by what is stated or the look of its columns, the reason of which is added.

    Parameters
    ----------
    source : Entries or Matrix
    layout : str
        As `--format` says.
    matrix_options : mapping of option to value
        Those that only a matrix of one unit has; None or False where they were not given.
    reasons : list of str
    """
    given = [name for name, value in matrix_options.items() if value]
    if layout == "table" and given:
        raise click.UsageError(
            f"{', '.join(given)} is for a matrix of one unit. Leave it out, or pass --format matrix."
        )
    if layout == "table" or not isinstance(source, Matrix) or source.col_ids is None:
        return layout == "table"
    if layout == "matrix" or given:
        return False
    from dmf.tables.units import look_alike  # with the models of tables, which lists of entries do not need

    if empty := [words.name for words in source.words if words.are_categories and (words.codes < 0).any()]:
        reasons.append(
            f"missing categories ({', '.join(listed(empty))}): taken as a table (--format matrix: numbers alone)"
        )
        return True
    alike, reason = look_alike(source.matrix)
    if alike:
        reasons.append(f"{reason}: taken as a matrix of one unit (--format table: each column has its own)")
        return False
    reasons.append(f"{reason}: taken as a table whose columns have units of their own (--format matrix: they have one)")
    return True


def complete_table(
    file: Path,
    source: Matrix,
    filled: Path | None,
    model: Path | None,
    report: Path | None,
    bounds: tuple[float, float] | None,
    reasons: Sequence[str],
    seed: int,
    as_json: bool,
) -> None:
    """Fill a table, write what was asked for, and print errors by column."""
    words = [column for column in source.words if column.are_categories]
    notes = [*source.notes_with(words), *reasons]
    if words:
        notes.append(f"columns of text taken as categories: {', '.join(listed([column.name for column in words]))}")
    text = None if filled is None else kept_text(file, filled, source, words)
    begin(model, [filled, report], notes, as_json)
    cells, places = with_words(source.matrix, words)
    start = time.perf_counter()
    with Progress() as progress, progress.compiles():
        recovery = dmf.complete_table(cells, bounds=bounds, seed=seed, callback=progress.table)
    seconds = time.perf_counter() - start
    if source.col_ids is not None:
        names = list(source.col_ids)
        for place, column in zip(places, words, strict=True):
            names.insert(place, column.name)
        recovery = replace(
            recovery, columns=tuple(replace(c, name=name) for c, name in zip(recovery.columns, names, strict=True))
        )
    rows = column_rows(recovery)
    told: dict[str, Any] = {"file": str(file), "shape": list(cells.shape), "notes": notes, "format": "table"}
    told |= {"columns": rows, "seconds": seconds}
    lines = [*table(rows), "", *recovery.summary().splitlines()]
    if model is not None:
        told["model"] = str(model)
        save(recovery, model, json_text(told))
        lines.append(f"written        {model} and {report_path(model).name}")
    if filled is not None and text is not None:
        more, line = write_filled(filled, text, *split(np.asarray(recovery.filled()), places, words, text))
        told |= more
        lines.append(line)
    if report is not None:
        from dmf.report.tables import write_table_report

        write_table_report(report, recovery, title=f"Completion of {file.name}")
        told["report"] = str(report)
        lines.append(f"report         {report}")
    emit(as_json, told, [*lines, f"time           {seconds:.1f} s"])


def split(
    table: np.ndarray, places: Sequence[int], words: Sequence[Words], text: Text | KeptColumns | KeptArray
) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """Numbers and texts for the holes of a text, of a filled table whose columns `places` are those of `words`."""
    numbers = np.delete(table, places, axis=1).astype(float)
    texts = [cell for place, column in zip(places, words, strict=True) for cell in column.filled(table[:, place])]
    return numbers[tuple(text.holes[:, 2:].T)], texts
