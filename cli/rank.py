"""dmf rank: which rank do the data support?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from dmf.arrays.backend import check_device
from dmf.io.matrices import read_entries
from dmf.io.writing import check_suffix, check_writable
from dmf.report.pictures import plot_rank_path
from dmf_cli.common import (
    InputFile,
    check_distinct,
    common_options,
    compare_ranks,
    device_option,
    emit,
    note,
    observed,
    table,
)
from dmf_cli.reading import reading_options


@click.command()
@click.argument("file", type=InputFile(folders=True))
@click.option(
    "--most", type=click.IntRange(min=1), help="Largest rank tried; as many as the entries allow unless given."
)
@click.option(
    "--holdout", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.1, show_default=True,
    help="Share of the entries on which ranks are compared.",
)  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), help="Picture to write (.png).")
@device_option
@reading_options
@common_options
def rank(file, most, holdout, plot, device, stated, seed, as_json):
    """Compare ranks by the error on entries held out.

    Fits the matrix in FILE, as for `dmf complete`, with bounds 0, 1, 2, ... on its rank, until three more have not helped, and
    chooses the smallest rank whose error is within one standard error of the lowest.
    """
    check_device(device)
    if plot is not None:
        check_suffix(plot, "picture", (".png",))
        check_distinct(FILE=file, the_picture=plot)
        check_writable(plot)
    source = read_entries(file, **stated)
    known, notes = observed(source)
    for sentence in notes:
        note(sentence, as_json)
    path = compare_ranks(known, device, most=most, holdout=holdout, seed=seed)
    if plot is not None:
        plot_rank_path(plot, f"Error against rank: {file.name}", path)
    report = {"file": str(file), "notes": notes, "best": path.best, "lowest": path.lowest,
              "offsets": path.offsets, "n_heldout": path.n_heldout, "steps": [asdict(step) for step in path.steps]}  # fmt: skip
    rows = [
        {"rank": step.rank, "held-out RMSE": step.heldout_rmse, "+-": step.standard_error, "train RMSE": step.train_rmse,
         "used": step.found, "noise": step.noise, "seconds": step.seconds, "": "<- chosen" * (step.rank == path.best)}
        for step in path.steps
    ]  # fmt: skip
    lines = [*table(rows), "", f"{path} ({path.n_heldout:,} entries held out)"]
    lines += [f"next           dmf complete {file} --rank {path.best}"] * (path.best > 0)
    lines += [f"picture        {plot}"] * (plot is not None)
    emit(as_json, report | ({} if plot is None else {"picture": str(plot)}), lines)
