"""dmf together: tables of the same rows and columns, completed together."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import dmf
from dmf.completion import complete_together
from dmf.io.matrices import read_entries
from dmf.io.writing import check_writable, write_text
from dmf_cli.common import InputFile, check_distinct, common_options, emit, note
from dmf_cli.filling import table_text
from dmf_cli.naming import Names
from dmf_cli.reading import reading_options


@click.command()
@click.argument("files", type=InputFile(), nargs=-1, required=True)
@click.option("--rank", type=click.IntRange(min=1), required=True, help="Of the structure that the tables share.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder for the completed tables: one .csv for each FILE, with its name.",
)  # fmt: skip
@reading_options
@common_options
def together(files, rank, output, stated, seed, as_json):
    """Complete several tables of the same rows and columns, such as one of each year.

    FILES hold tables with missing cells, or lines of row, column and value. Rows and columns are brought together by name;
    those that a table lacks are missing there. Where the tables have structure in common, each is completed better than
    alone; entries held out decide whether they have. The tables written have all rows and columns, known values as they were.
    """
    targets = [output / f"{file.stem}.csv" for file in files]
    named = {f"FILE_{k}": file for k, file in enumerate(files, 1)}
    check_distinct(**named, **{f"the_table_of_FILE_{k}": target for k, target in enumerate(targets, 1)})
    sources = [read_entries(file, **stated) for file in files]
    names = [Names(), Names()]
    placed = [
        [n.places(ids, size) for n, ids, size in zip(names, (s.row_ids, s.col_ids), s.shape, strict=True)]
        for s in sources
    ]
    shape = (len(names[0]), len(names[1]))
    tables = [
        dmf.SampledEntries(rows[s.rows], cols[s.cols], s.values, shape)
        for s, (rows, cols) in zip(sources, placed, strict=True)
    ]
    for file, source in zip(files, sources, strict=True):
        for sentence in source.notes:
            note(f"{file}: {sentence}", as_json)
    output.mkdir(parents=True, exist_ok=True)
    for target in targets:
        check_writable(target)
    found = complete_together(tables, rank, seed=seed)
    header = ["", *names[1]]
    for target, table in zip(targets, found, strict=True):
        write_text(
            target, table_text(header, [[name, *row] for name, row in zip(names[0], table.filled(), strict=True)])
        )
    errors = {name: error for name, error in found.heldout.items() if np.isfinite(error)}
    report = {"files": [str(file) for file in files], "rank": rank, "shared": found.shared, "heldout": errors,
              "noise": found.noise if found.shared else None, "shape": list(shape),
              "written": [str(target) for target in targets]}  # fmt: skip
    lines = [
        f"{len(files)} tables of {shape[0]:,} x {shape[1]:,}, completed {'together' if found.shared else 'each alone'}"
    ]
    lines += [f"held-out RMSE  {error:.4g} {name}" for name, error in errors.items()]
    emit(as_json, report, [*lines, f"written        {', '.join(map(str, targets))}"])
