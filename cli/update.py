"""dmf update: new entries for a model, without fitting all of it again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

import dmf
from dmf.io.matrices import read_entries
from dmf.io.writing import check_writable, json_text
from dmf_cli.common import (
    InputFile,
    check_distinct,
    common_options,
    emit,
    load_model,
    note,
    report_path,
    save,
    summary_of,
)
from dmf_cli.naming import Names
from dmf_cli.reading import reading_options


@click.command()
@click.argument("model", type=InputFile())
@click.argument("new", type=InputFile())
@click.option("--seen", type=InputFile(), required=True, help="File of the entries that MODEL was fitted to.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Model file to write.")
@reading_options
@common_options
def update(model, new, seen, output, stated, seed, as_json):
    """Take new entries, rows and columns into a model.

    NEW and the file of --seen are of one form: lines of row, column and value, or a table with missing cells. The new entries
    are fitted with all others in a few sweeps, from where the model stands; where there is noise, offsets are, too.
    """
    check_distinct(
        MODEL=model, NEW=new, the_seen_entries=seen, the_output=output, the_JSON_beside_it=report_path(output)
    )
    recovery = load_model(model)
    if not isinstance(recovery, dmf.Recovery):
        raise click.UsageError(
            f"{model} is the model of a table, which is not updated. Fit it again with `dmf complete`."
        )
    for path in (output, report_path(output)):
        check_writable(path)
    ids = recovery.row_ids, recovery.col_ids
    names = [Names(map(str, range(n)) if own is None else own) for own, n in zip(ids, recovery.shape, strict=True)]
    old = _placed(seen, stated, names, recovery, as_json)
    if old.shape != recovery.shape:
        raise dmf.errors.FileError(
            f"{seen} holds {old.shape[0] - recovery.shape[0]:,} rows and {old.shape[1] - recovery.shape[1]:,} columns that "
            f"{model} does not know, so that it was not fitted to it. Pass the file that `dmf complete` had."
        )
    if recovery.outliers is not None and len(recovery.outliers):
        wrong = recovery.outliers.rows * old.shape[1] + recovery.outliers.cols
        old = old.chosen(~np.isin(old.rows.astype(np.int64) * old.shape[1] + old.cols, wrong))
    begin = time.perf_counter()
    updated = replace(recovery, observations=old).update(_placed(new, stated, names, recovery, as_json))
    seconds = time.perf_counter() - begin
    updated = updated.with_ids(*names)
    report = {"model": str(model), "new": str(new), "output": str(output), **summary_of(updated), "seconds": seconds}
    save(updated, output, json_text(report))
    emit(
        as_json,
        report,
        [f"result         {updated.message}", f"time           {seconds:.1f} s", f"written        {output}"],
    )


def _placed(file: Path, stated, names: list[Names], recovery: dmf.Recovery, as_json: bool) -> dmf.SampledEntries:
    """The entries of a file in the numbering of a model; rows and columns that it does not know come after the others."""
    source = read_entries(file, **stated)
    for sentence in source.notes:
        note(f"{file}: {sentence}", as_json)
    rows, cols = (
        n.places(own, size) for n, own, size in zip(names, (source.row_ids, source.col_ids), source.shape, strict=True)
    )
    values = source.values.astype(recovery.model.dtype)
    return dmf.SampledEntries(rows[source.rows], cols[source.cols], values, (len(names[0]), len(names[1])))
