"""dmf complete, dmf factorize, dmf sense: from a file to a model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import dmf
from dmf.backend import check_device
from dmf.io.archive import check_writable, write_text
from dmf.io.matrices import MatrixFile, read_entries, read_matrix, read_sensing
from dmf.io.tables import Table, write_filled
from dmf.recover import solve_on
from dmf.report import check_report_path, write_report
from dmf_cli.common import Progress, common_options, emit, layout_option, note, to_json

_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(path_type=Path)
_TABLES = (".csv", ".tsv")  # suffixes of filled tables


def _model_options(rank: str) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "-o",
                "--output",
                type=_OUTPUT,
                help="File to write; a model with FILE's name and .dmf.npz unless given.",
            ),
            click.option("--depth", type=click.IntRange(min=1), default=3, show_default=True, help="Number of layers."),
            click.option("--rank", type=click.IntRange(min=1), help=f"{rank}; found from the data unless given."),
        ):
            command = option(command)
        return command

    return decorate


_iterations_option = click.option(
    "--iterations", type=click.IntRange(min=0), default=10_000, show_default=True, help="Most iterations in all."
)


_device_option = click.option(
    "--device",
    metavar="cpu|cuda[:N]",
    default="cpu",
    show_default=True,
    help="Where to compute: the CPU, or a CUDA device.",
)


def _holdout_option(what: str) -> Callable[..., Any]:
    return click.option(
        "--holdout", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True,
        help=f"Share of the {what} set aside for an honest error; 0: fit to all.",
    )  # fmt: skip


@click.command()
@click.argument("file", type=_INPUT)
@_model_options("Upper bound on the rank")
@_iterations_option
@_device_option
@_holdout_option("entries")
@click.option(
    "--offsets/--no-offsets",
    default=None,
    help="Row and column offsets in the model; decided by the data unless given.",
)
@layout_option
@click.option("--model", type=_OUTPUT, help="Model file to write beside a filled table, which -o names.")
@click.option("--report", type=_OUTPUT, help="Report to write: pictures and numbers in one .html or .png file.")
@common_options
def complete(file, output, model, report, device, holdout, offsets, layout, seed, as_json, **options):
    """Complete a matrix from some of its entries.

    FILE holds the known entries: delimited text, either with the columns row, column and value (ids may be any text; further
    columns are ignored) or as a table with missing cells (empty, NA, NaN, null); a Matrix Market file, an .npy file with NaN for
    missing entries, or an .npz file.

    Where -o ends in .csv or .tsv and FILE is a table, the table is written there with its missing cells filled, all else as it
    was; a model is then written only if --model names it.
    """
    filled = output if output is not None and output.suffix.lower() in _TABLES else None
    if filled is None and model is not None:
        raise click.UsageError(
            "--model goes with a filled table (-o FILE.csv). Where -o names no table, it names the model."
        )
    check_device(device)
    source = read_entries(file, layout)
    known = source.observations
    d1, d2 = known.shape
    if filled is None:
        model = _model_path(file, output)
    else:
        text = _to_fill(file, filled, source)
    if report is not None:
        check_report_path(report)
    found = f"{known.n_measurements:,} entries of a {d1:,} x {d2:,} matrix ({known.n_measurements / (d1 * d2):.2%})"
    _begin(model, [filled, report], (*source.notes, found), as_json)
    kept, held = known.split(holdout, seed) if holdout else (known, None)
    options["offsets"] = "auto" if offsets is None else offsets
    recovery, seconds = _timed(dmf.complete, kept, device, callback=True, seed=seed, **options)
    residuals = _residuals(recovery, kept)
    errors: dict[str, Any] = {"train_rmse": _rmse(residuals)[0]}
    lines = [f"train RMSE     {errors['train_rmse']:.4g} on {kept.n_measurements:,} entries"]
    if held is not None:
        residuals = _residuals(recovery, held)
        errors["heldout_rmse"], errors["heldout_standard_error"] = _rmse(residuals)
        errors["n_heldout"] = held.n_measurements
        lines.append(
            f"held-out RMSE  {errors['heldout_rmse']:.4g} +- {errors['heldout_standard_error']:.2g} on "
            f"{held.n_measurements:,} entries that the model never saw"
        )
    recovery = recovery.with_ids(source.row_ids, source.col_ids)
    more: dict[str, Any] = {}
    if filled is not None:
        count = write_filled(filled, text, recovery.product())
        more = {"filled": str(filled), "cells_filled": count}
        lines.append(f"filled         {count:,} cells, in {filled}")
    if report is not None:
        facts = {"file": str(file), "entries": found, **_facts(errors), "seconds": seconds}
        write_report(report, recovery, facts, residuals, title=f"Completion of {file.name}", held_out=held is not None)
        more["report"] = str(report)
        lines.append(f"report         {report}")
    _finish(file, model, recovery, errors, lines, seconds, source.notes, as_json, more)


def _to_fill(file: Path, filled: Path, source: MatrixFile) -> Table:
    """The table to fill; raises unless there is one with missing cells."""
    if source.table is None:
        raise dmf.FileError(
            f"cannot write {filled} as a filled table: {file} is no table in text but lists entries. Write a model (-o "
            "model.npz) and ask it with `dmf predict`; if the file is a table, pass --format table."
        )
    if source.observations.n_measurements == math.prod(source.observations.shape):
        raise dmf.FileError(
            f"cannot write {filled} as a filled table: no cell of {file} is missing. For an approximation of low rank use "
            "`dmf factorize`."
        )
    return source.table


def _residuals(recovery: dmf.Recovery, observations: dmf.SampledEntries) -> np.ndarray:
    return observations.values - recovery.predict(observations.rows, observations.cols)


def _rmse(residuals: np.ndarray) -> tuple[float, float]:
    """Root-mean-square error and its standard error (delta method)."""
    squares = residuals**2
    rmse = math.sqrt(np.mean(squares, dtype=np.float64))
    return rmse, float(np.std(squares) / (2 * max(rmse, 1e-300) * math.sqrt(squares.size)))


def _facts(errors: Mapping[str, Any]) -> dict[str, str]:
    """Errors as the table of a report shows them."""
    facts = {"train RMSE": f"{errors['train_rmse']:.4g}"}
    if "heldout_rmse" in errors:
        size = f"{errors['n_heldout']:,} entries that the model never saw"
        facts["held-out RMSE"] = f"{errors['heldout_rmse']:.4g} +- {errors['heldout_standard_error']:.2g} on {size}"
    return facts


@click.command()
@click.argument("file", type=_INPUT)
@_model_options("Rank of the approximation")
@_device_option
@layout_option
@common_options
def factorize(file, output, device, layout, seed, as_json, **options):
    """Approximate a fully known matrix by one of low rank.

    FILE is an .npy or .npz file, a Matrix Market file, or delimited text: a table, or lines with row,
    column and value of every entry.
    """
    check_device(device)
    source = read_matrix(file, layout)
    d1, d2 = source.matrix.shape
    output = _model_path(file, output)
    _begin(output, [], (*source.notes, f"{d1:,} x {d2:,} matrix"), as_json)
    recovery, seconds = _timed(dmf.factorize, dmf.FullMatrix(source.matrix), device, seed=seed, **options)
    size = np.linalg.norm(source.matrix)
    error = float(np.linalg.norm(recovery.product() - source.matrix) / size) if size else 0.0
    lines = [f"relative error {error:.4g} (Frobenius norm)"]
    recovery = recovery.with_ids(source.row_ids, source.col_ids)
    _finish(file, output, recovery, {"relative_error": error}, lines, seconds, source.notes, as_json)


@click.command()
@click.argument("file", type=_INPUT)
@_model_options("Upper bound on the rank")
@_iterations_option
@_device_option
@_holdout_option("measurements")
@common_options
def sense(file, output, device, holdout, seed, as_json, **options):
    """Recover a matrix from linear measurements y_i = <A_i, X>.

    FILE is an .npz file with the arrays A (m, d1, d2) and y (m,).
    """
    check_device(device)
    operator, values, notes = read_sensing(file)
    measured = dmf.LinearMeasurements(operator, values)
    d1, d2 = measured.shape
    output = _model_path(file, output)
    _begin(output, [], (*notes, f"{values.shape[0]:,} measurements of a {d1:,} x {d2:,} matrix"), as_json)
    kept, held = measured.split(holdout, seed) if holdout else (measured, None)
    recovery, seconds = _timed(dmf.sense, kept, device, callback=True, seed=seed, **options)
    errors = {"train_relative_error": _relative_error(recovery, kept)}
    lines = [
        f"relative error of the fit        {errors['train_relative_error']:.4g} on {kept.n_measurements:,} measurements"
    ]
    if held is not None:
        errors["heldout_relative_error"] = _relative_error(recovery, held)
        lines.append(
            f"relative error of the prediction {errors['heldout_relative_error']:.4g} on {held.n_measurements:,} measurements "
            "that the model never saw"
        )
    _finish(file, output, recovery, errors, lines, seconds, notes, as_json)


def _relative_error(recovery: dmf.Recovery, observations: dmf.LinearMeasurements) -> float:
    size = float(np.linalg.norm(observations.values))
    return math.sqrt(2 * float(observations.loss(*recovery.factors()))) / size if size else 0.0


def _model_path(file: Path, output: Path | None) -> Path:
    return Path(f"{file.stem}.dmf.npz") if output is None else output


def _begin(model: Path | None, others: Sequence[Path | None], found: Sequence[str], as_json: bool) -> None:
    """All files are known to be writable before the work begins; says what was found in the input."""
    for path in (model, model and _report_path(model), *others):
        if path is not None:
            check_writable(path)
    for sentence in found:
        note(sentence, as_json)


def _timed(
    solve: Callable[..., dmf.Recovery], data: dmf.Observations, device: str, callback: bool = False, **options: Any
) -> tuple[dmf.Recovery, float]:
    """What `solve` returns, in NumPy arrays, and the seconds that it took; with `callback`, it shows its progress."""
    progress = Progress()
    if callback:
        options["callback"] = progress.solver
    begin = time.perf_counter()
    recovery = solve_on(device, solve, data, **options)
    seconds = time.perf_counter() - begin
    progress.done()
    return recovery, seconds


def _report_path(output: Path) -> Path:
    return output.with_name(output.name.removesuffix(".npz") + ".json")


def _finish(
    file: Path,
    model: Path | None,
    recovery: dmf.Recovery,
    errors: Mapping[str, Any],
    lines: Sequence[str],
    seconds: float,
    notes: Sequence[str],
    as_json: bool,
    written: Mapping[str, Any] | None = None,
) -> None:
    """Write model and report, print the summary; exit code 1 if the solve was interrupted or diverged."""
    recovery.options.update(errors)
    report = {
        "file": str(file),
        "shape": list(recovery.shape),
        "notes": list(notes),
        "options": recovery.options,
        "status": {"reason": recovery.status.reason, "advice": recovery.status.advice},
        "seconds": seconds,
        **errors,
        **(written or {}),
    }
    if model is not None:
        report["model"] = str(model)
        history = {name: np.asarray(column).tolist() for name, column in recovery.history.items()}
        recovery.save(model)
        write_text(_report_path(model), to_json(report | {"history": history}) + "\n")
    parts = [f"rank {recovery.options['rank']}", f"depth {recovery.options['depth']}"]
    parts += [f"noise {recovery.options['noise']:.3g}"] * (not recovery.options["exact"])
    parts += ["row and column offsets"] * bool(recovery.options["offsets"])
    summary = [
        f"model          {', '.join(parts)}; {recovery.network.n_parameters:,} weights",
        *lines,
        f"status         {recovery.status}",
        f"time           {seconds:.1f} s",
        f"written        {model} and {_report_path(model).name}"
        if model
        else "model          not kept (--model FILE keeps it)",
    ]
    emit(as_json, report, summary)
    if recovery.status.reason in ("interrupted", "diverged"):
        where = model or (written or {}).get("filled")
        click.echo(f"Error: {recovery.status.reason}; the last good state was written to {where}.", err=True)
        raise click.exceptions.Exit(1)
