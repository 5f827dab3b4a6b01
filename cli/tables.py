"""dmf complete for tables whose columns have units of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import dmf
from dmf.io.arrow import KeptColumns
from dmf.io.filling import Text
from dmf.io.reading import Entries, Matrix
from dmf.io.writing import check_writable, json_text, write_text
from dmf.report.tables import write_table_report
from dmf.tables.units import look_alike
from dmf_cli.common import emit, note, table


def is_table(source: Entries | Matrix, layout: str, matrix_options: Mapping[str, Any], notes: list[str]) -> bool:
    """Whether a file is completed as a table, by what is stated or the look of its columns, which is added to the notes.

    Parameters
    ----------
    source : Entries or Matrix
    layout : str
        As `--format` says.
    matrix_options : mapping of option to value
        Those that only a matrix of one unit has; None or False where they were not given.
    notes : list of str
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
    alike, reason = look_alike(source.matrix)
    if alike:
        notes.append(f"{reason}: taken as a matrix of one unit (--format table: each column has its own)")
        return False
    notes.append(f"{reason}: taken as a table whose columns have units of their own (--format matrix: they have one)")
    return True


def complete_table(
    file: Path,
    source: Matrix,
    text: Text | KeptColumns | None,
    filled: Path | None,
    model: Path | None,
    report: Path | None,
    bounds: tuple[float, float] | None,
    notes: Sequence[str],
    seed: int,
    as_json: bool,
) -> None:
    """Fill a table, write what was asked for, and print errors by column."""
    for path in (model, filled, report):
        if path is not None:
            check_writable(path)
    for sentence in notes:
        note(sentence, as_json)
    begin = time.perf_counter()
    recovery = dmf.complete_table(source.matrix, bounds=bounds, seed=seed)
    seconds = time.perf_counter() - begin
    held = recovery.held_out
    off = (held.truth - held.predictions) ** 2
    names = source.col_ids or tuple(map(str, range(source.matrix.shape[1])))
    errors = []
    for k, name in enumerate(names):
        own = off[recovery.units.groups[held.columns] == k]
        if own.size:
            scale = float(recovery.units.scale[k])
            rmse = float(np.sqrt(own.mean()))
            errors.append(
                {"column": name, "held-out RMSE": rmse * scale, "of the mean's": rmse, "cells": int(own.size)}
            )
    told: dict[str, Any] = {
        "file": str(file),
        "shape": list(source.matrix.shape),
        "notes": list(notes),
        "format": "table",
    }
    told |= {"columns": errors, "seconds": seconds}
    lines = [*(table(errors) if errors else []), "", *recovery.summary().splitlines()]
    if model is not None:
        recovery.save(model)
        told["model"] = str(model)
        write_text(Path(str(model).removesuffix(".npz") + ".json"), json_text(told) + "\n")
        lines.append(f"written        {model} (dmf.tables.load reads it)")
    if filled is not None and text is not None:
        _, _, rows, cols = text.holes.T
        text.write_filled(filled, np.asarray(recovery.filled())[rows, cols])
        told |= {"filled": str(filled), "cells_filled": len(rows), "cells_left_empty": text.n_left_empty}
        empty = f"; {text.n_left_empty:,} stay empty, in rows or columns without any number" * bool(text.n_left_empty)
        lines.append(f"filled         {len(rows):,} cells, in {filled}{empty}")
    if report is not None:
        write_table_report(report, recovery, title=f"Completion of {file.name}")
        told["report"] = str(report)
        lines.append(f"report         {report}")
    emit(as_json, told, [*lines, f"time           {seconds:.1f} s"])
