"""dmf info: what a model file holds. It imports little, as it is asked often."""

from __future__ import annotations

import click

import dmf
from dmf.io.messages import number
from dmf_cli.common import InputFile, column_rows, common_options, emit, error_texts, load_model, summary_of, table


@click.command()
@click.argument("model", type=InputFile())
@common_options
def info(model, seed, as_json):
    """Show what a model file holds."""
    recovery = load_model(model)
    if not isinstance(recovery, dmf.Recovery):  # the import of tables takes time
        rows = column_rows(recovery)
        taken = [vars(member.candidate) | {"weight": member.weight} for member in recovery.members]
        report = {"model": str(model), "format": "table", "columns": rows, "candidates": taken, "seed": recovery.seed}
        emit(as_json, report, [*table(rows), "", *recovery.summary().splitlines()])
        return
    summary = summary_of(recovery)
    report = {
        "model": str(model),
        "shape": list(recovery.shape),
        "rank": recovery.found.rank,
        "dtype": str(recovery.model.dtype),
        "offsets": recovery.offsets is not None,
        "named_rows": recovery.row_ids is not None,
        "named_columns": recovery.col_ids is not None,
        "bounds": recovery.bounds,
        "training_loss": float(recovery.history.loss[-1]),
        "seconds": float(recovery.history.seconds[-1]),
    }
    shown = {key.replace("_", " "): _text(value) for key, value in report.items()}
    shown |= error_texts(recovery) | {"iterations": f"{recovery.nit:,}", "result": recovery.message}
    width = max(map(len, shown))
    emit(as_json, report | summary, [f"{name:<{width}}  {text}" for name, text in shown.items()])


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return " to ".join(f"{end:g}" for end in value)
    return number(value)
