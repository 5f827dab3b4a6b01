"""dmf predict: entries of a completed matrix, rankings, and new tables filled."""

from __future__ import annotations

import csv
from pathlib import Path

import click
import numpy as np

import dmf
from dmf.io.cells import Stated
from dmf.io.matrices import read, read_entries
from dmf.io.pairs import read_pairs, read_row_ids
from dmf.io.predictions import format_predictions, write_predictions
from dmf.io.reading import Matrix
from dmf.io.words import with_words
from dmf.io.writing import check_writable
from dmf.recovery.intervals import interval_around
from dmf.recovery.names import position_of
from dmf.recovery.ranking import align, nearest_columns, positions, top_columns
from dmf_cli.cluster import Cluster, predict_on_cluster
from dmf_cli.common import InputFile, check_distinct, common_options, echo, emit, load_model, note
from dmf_cli.filling import kept_text, write_filled
from dmf_cli.reading import table_options
from dmf_cli.tables import split


class _Positions:
    """Names of the rows of a model without names: the numbers from 0 to size - 1."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and position_of(name, self._size) >= 0


@click.command()
@click.argument("model", type=InputFile())
@click.argument("pairs", type=InputFile(folders=True), required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    help="CSV file to write; - for stdout. With --cluster, a folder of Parquet files.",
)
@click.option("--top", type=click.IntRange(min=1), help="Write this many best columns of each row instead.")
@click.option(
    "--time", metavar="NAME|N", help="Column of PAIRS that holds times, for a model that was fitted with --time."
)
@click.option("--rows", help="With --top: the rows, separated by commas; all, or those in PAIRS, unless given.")
@click.option("--neighbours", type=click.IntRange(min=1), help="Write this many columns most like each column instead.")
@click.option("--columns", help="With --neighbours: the columns, separated by commas; all unless given.")
@click.option(
    "--interval", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="COVERAGE",
    help="Add columns low and high: intervals that hold this share of new entries, such as 0.9. Not with --top: columns chosen "
    "for their high predictions are overestimated more often than this allows for.",
)  # fmt: skip
@click.option(
    "--seen", type=InputFile(folders=True), help="With --top: file of entries, as for complete, that are left out."
)
@click.option("--cluster", type=Cluster(), help="Predict on a Dask cluster, which reads PAIRS and --seen as Parquet.")
@table_options
@common_options
def predict(model, pairs, output, top, neighbours, columns, interval, time, rows, seen, stated, cluster, seed, as_json):
    """Predict entries of a completed matrix, or rank the columns of its rows.

    PAIRS is delimited text whose first two columns are row and column, named as in the data of MODEL. With --top N only its first
    column is read: the rows to rank. The output has the columns row, column and prediction; with --interval also low and high,
    which are empty for rows and columns that were not in the data: no entry like them was held out. With --neighbours N the
    output has the columns column, neighbour and similarity, the cosine of the angle between the factors of the two.

    With --cluster, PAIRS is a Parquet file or a folder of such files, and the output a folder, where workers write a file for
    each row group, or with --top for some of the rows.

    Where MODEL is that of a table whose columns have units of their own, PAIRS is a new table with these columns, and the output
    the same with its holes filled. All options that say how to read a file are for such tables; for pairs --header alone is.
    """
    if neighbours is not None and (pairs, top, rows, seen, interval) != (None,) * 5:
        raise click.UsageError("--neighbours goes with --columns alone: leave PAIRS and the other options out.")
    if columns is not None and neighbours is None:
        raise click.UsageError("--columns is only for --neighbours.")
    if top is None and neighbours is None and (pairs is None or rows is not None or seen is not None):
        raise click.UsageError(
            "give a file of PAIRS to predict, or --top N, or --neighbours N; --rows and --seen are only for --top."
        )
    if time is not None and (top is not None or pairs is None or cluster is not None):
        raise click.UsageError(
            "--time is about PAIRS to predict. Leave --top, --neighbours and --cluster out, or --time."
        )
    if pairs is not None and rows is not None:
        raise click.UsageError("rows are given twice: by PAIRS and by --rows. Give one of them.")
    if rows is not None and not rows.strip():
        raise click.UsageError(
            "--rows names no row. Give their names, separated by commas, or leave it out for all rows."
        )
    if top is not None and interval is not None:
        raise click.UsageError(
            "--interval does not go with --top: intervals hold their share of all entries, but fewer of those chosen for "
            "their high predictions. Predict PAIRS that do not depend on the predictions."
        )
    if cluster is not None:
        if neighbours is not None:
            raise click.UsageError("--neighbours does not go with --cluster. Leave one of them out.")
        if top is not None and (pairs is not None or rows is not None):
            raise click.UsageError("--top with --cluster ranks all rows. Leave PAIRS and --rows out.")
        predict_on_cluster(model, pairs, output, top, interval, seen, cluster, as_json)
        return
    for path in (pairs, seen):
        if path is not None and path.is_dir():
            raise click.UsageError(f"{path} is a folder, which --cluster reads. Name a file.")
    to_stdout = str(output) == "-"
    if to_stdout and as_json:
        raise click.UsageError("-o - prints the predictions, --json a report in their place. Give one of them.")
    check_distinct(MODEL=model, PAIRS=pairs, the_output=None if to_stdout else output)
    check_distinct(the_seen_entries=seen, the_output=None if to_stdout else output)
    if not to_stdout:
        check_writable(output)
    recovery = load_model(model)
    quiet = as_json or to_stdout
    if not isinstance(recovery, dmf.Recovery):  # the import of tables takes time
        if any(option is not None for option in (top, neighbours, interval, time)) or to_stdout:
            raise click.UsageError(
                f"{model} is the model of a table: give it a TABLE and -o FILE.csv, and no other option. In Python, "
                "dmf.tables.load reads it and has intervals, too."
            )
        _fill(recovery, model, pairs, stated, output, as_json)
        return
    header = stated.pop("header")
    if given := [name for name, value in stated.items() if value != getattr(Stated(), name)]:
        option = given[0].replace("_", "-")
        raise click.UsageError(
            f"--{option} is for the model of a table, but {model} is that of a matrix. Leave it out."
        )
    names, what = ("row", "column"), "prediction"
    if neighbours is not None:
        row_ids, col_ids, values = _nearest(recovery, columns, neighbours)
        names, what, known = ("column", "neighbour"), "similarity", np.ones(len(values), bool)
    elif top is None:
        row_ids, col_ids, values, known = _predicted(recovery, pairs, header, time, quiet)
    else:
        row_ids, col_ids, values = _ranked(recovery, pairs, header, top, rows, seen, quiet)
        known = np.ones(len(values), bool)
    written = {what: values}
    if interval is not None:
        ends = interval_around(recovery, values, interval, timed=time is not None)
        written |= {name: np.where(known, end, np.nan) for name, end in zip(("low", "high"), ends, strict=True)}
    if to_stdout:
        for line in format_predictions(row_ids, col_ids, written, names):
            echo(line, nl=False, data=True)
        return
    write_predictions(output, row_ids, col_ids, written, names)
    unknown = {} if top or neighbours else {"unknown": int((~known).sum())}
    report = {"model": str(model), "predictions": len(values), **unknown, "output": str(output)}
    kinds = "similarities" if neighbours else "predictions"
    emit(as_json, report, [f"{len(values):,} {kinds} written to {output}"])


def _fill(recovery, model, file, stated, output, as_json):
    """Write a new table with its holes filled by the model of another one, whose columns it has."""
    names = [str(column.name) for column in recovery.columns]
    worded = [str(column.name) for column in recovery.columns if column.levels]
    named = names != [str(k) for k in range(len(names))]
    found = read(
        file, "table", keep_text=True, columns=names if named else None, texts=worded if named else (), **stated
    )
    assert isinstance(found, Matrix)  # as the layout says
    words = [column for column in found.words if column.name in worded]
    if len(words) < len(worded):
        lost = next(name for name in worded if name not in {column.name for column in words})
        raise dmf.errors.FileError(
            f"cannot fill {file}: column {lost} holds categories in {model}, but there numbers or too many different texts. "
            "Pass a table with the same columns."
        )
    for sentence in found.notes_with(words):
        note(sentence, as_json)
    text = kept_text(file, output, found, words)
    cells, places = with_words(found.matrix, words)
    there = list(found.col_ids or ())
    for place, column in zip(places, words, strict=True):
        there.insert(place, column.name)
    order = list(map(there.index, names)) if named else slice(None)
    filled = np.empty_like(cells)
    filled[:, order] = recovery.by_place().filled(cells[:, order])
    told, line = write_filled(output, text, *split(filled, places, words, text))
    emit(as_json, {"model": str(model)} | told, [line])


def _predicted(recovery, pairs, header, time, quiet):
    """Ids and predictions for pairs of a file, and whether row and column were in the data."""
    known_rows, known_cols = [_Positions(n) if ids is None else set(ids) for ids, n in
             zip((recovery.row_ids, recovery.col_ids), recovery.shape, strict=True)]  # fmt: skip
    wanted = read_pairs(pairs, known_rows, known_cols, header, time)
    for sentence in wanted.notes:
        note(sentence, quiet)
    if recovery.drift is not None and time is None:
        note("the model holds drift: without times of the pairs (--time) the mean is predicted", quiet)
    if recovery.drift is None and time is not None:
        note("the model holds no drift: times of the pairs change nothing", quiet)
    values, known = recovery.predict_named(wanted.row_ids, wanted.col_ids, wanted.times)
    if unknown := int((~known).sum()):
        what = "no prediction, the model has no offsets" if recovery.offsets is None else "mean and offsets only"
        note(f"{unknown:,} pairs have a row or column that was not in the data: {what}", quiet)
    return wanted.row_ids, wanted.col_ids, values, known


def _ranked(recovery, file, header, top, rows, seen, quiet):
    """Ids and predictions of the best columns of rows."""
    row_names = recovery.row_ids or [str(k) for k in range(recovery.shape[0])]
    col_names = recovery.col_ids or [str(k) for k in range(recovery.shape[1])]
    if file is not None:
        wanted, notes = read_row_ids(file, set(row_names), header)
        for sentence in notes:
            note(sentence, quiet)
    else:
        wanted = _named(rows, row_names)
    at = positions(wanted, recovery.row_ids, recovery.shape[0])
    left_out = None
    if seen is None:
        note("all columns are ranked, those already observed too; --seen FILE leaves the entries in FILE out", quiet)
    else:
        source = read_entries(seen)
        entries = dmf.SampledEntries.from_entries(source)
        left_out, unknown = align(recovery, entries, source.row_ids, source.col_ids)
        if unknown:
            note(f"{unknown:,} entries of {seen} have a row or column that the model does not know", quiet)
    index, columns, values = top_columns(recovery, at, top, left_out)
    return [row_names[k] for k in index], [col_names[k] for k in columns], values


def _nearest(recovery, columns, count):
    """Ids of columns and of those most like them, and how much they are."""
    names = recovery.col_ids or [str(k) for k in range(recovery.shape[1])]
    at = positions(_named(columns, names), recovery.col_ids, recovery.shape[1], "columns")
    index, others, values = nearest_columns(recovery, at, count)
    return [names[k] for k in index], [names[k] for k in others], values


def _named(texts, all_names):
    """The names in a text, separated by commas; all of them where there is none."""
    return all_names if texts is None else [name.strip() for name in next(csv.reader([texts]))]
