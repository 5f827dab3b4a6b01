"""dmf predict and dmf info: use a model file."""

from __future__ import annotations

from pathlib import Path

import click

import dmf
from dmf.io.matrices import format_predictions, read_pairs, write_predictions
from dmf_cli.common import common_options, emit, note

_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Positions:
    """Names of the rows of a model without names: the numbers from 0 to size - 1."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.isascii() and name.isdigit() and int(name) < self._size


@click.command()
@click.argument("model", type=_INPUT)
@click.argument("pairs", type=_INPUT)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    help="CSV file to write; - for stdout.",
)
@common_options
def predict(model, pairs, output, seed, as_json):
    """Predict entries of a completed matrix.

    PAIRS is delimited text whose first two columns are row and column, named as in the data of MODEL. The output has the columns
    row, column and prediction.
    """
    recovery = dmf.load(model)
    known = [_Positions(n) if ids is None else set(ids) for ids, n in
             zip((recovery.row_ids, recovery.col_ids), recovery.shape, strict=True)]  # fmt: skip
    wanted = read_pairs(pairs, *known)
    to_stdout = str(output) == "-"
    for sentence in wanted.notes:
        note(sentence, as_json or to_stdout)
    values, unknown = recovery.predict_named(wanted.row_ids, wanted.col_ids)
    if unknown:
        note(
            f"{unknown:,} pairs have a row or column that was not in the data: mean and offsets only",
            as_json or to_stdout,
        )
    if to_stdout:
        for line in format_predictions(wanted.row_ids, wanted.col_ids, values):
            click.echo(line, nl=False)
        return
    write_predictions(output, wanted.row_ids, wanted.col_ids, values)
    report = {"model": str(model), "predictions": len(values), "unknown": unknown, "output": str(output)}
    emit(as_json, report, [f"{len(values):,} predictions written to {output}"])


@click.command()
@click.argument("model", type=_INPUT)
@common_options
def info(model, seed, as_json):
    """Show what a model file holds."""
    recovery = dmf.load(model)
    network = recovery.network
    report = {
        "model": str(model),
        "shape": list(network.shape),
        "depth": network.depth,
        "widths": list(network.widths),
        "dtype": str(network.dtype),
        "weights": network.n_parameters,
        "offsets": recovery.offsets is not None,
        "named_rows_and_columns": recovery.row_ids is not None,
        "status": {"reason": recovery.status.reason, "advice": recovery.status.advice},
        "options": recovery.options,
        "iterations": int(recovery.history.iteration[-1]),
        "training_loss": float(recovery.history.loss[-1]),
        "seconds": float(recovery.history.seconds[-1]),
    }
    width = max(map(len, report))
    lines = [f"{key.replace('_', ' '):<{width}}  {_text(value)}" for key, value in report.items() if key != "status"]
    emit(as_json, report, [*lines, f"{'status':<{width}}  {recovery.status}"])


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
