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
from dmf.io.archive import check_writable, write_text
from dmf.io.matrices import read_entries, read_matrix, read_sensing
from dmf_cli.common import Progress, common_options, emit, note, to_json

_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(path_type=Path)


def _model_options(rank: str) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "-o", "--output", type=_OUTPUT, help="Model file to write; FILE's name with .dmf.npz unless given."
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


def _holdout_option(what: str) -> Callable[..., Any]:
    return click.option(
        "--holdout", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True,
        help=f"Share of the {what} set aside for an honest error; 0: fit to all.",
    )  # fmt: skip


@click.command()
@click.argument("file", type=_INPUT)
@_model_options("Upper bound on the rank")
@_iterations_option
@_holdout_option("entries")
@click.option(
    "--offsets/--no-offsets",
    default=None,
    help="Row and column offsets in the model; decided by the data unless given.",
)
@common_options
def complete(file, output, holdout, offsets, seed, as_json, **options):
    """Complete a matrix from some of its entries.

    FILE holds the known entries: delimited text with the columns row, column and value (ids may be any text; further columns
    are ignored), a Matrix Market file, an .npy file with NaN for missing entries, or an .npz file.
    """
    source = read_entries(file)
    known = source.observations
    d1, d2 = known.shape
    found = f"{known.n_measurements:,} entries of a {d1:,} x {d2:,} matrix ({known.n_measurements / (d1 * d2):.2%})"
    output = _begin(file, output, (*source.notes, found), as_json)
    kept, held = known.split(holdout, seed) if holdout else (known, None)
    options["offsets"] = "auto" if offsets is None else offsets
    recovery, seconds = _timed(dmf.complete, kept, seed=seed, **options)
    errors: dict[str, Any] = {"train_rmse": _rmse(recovery, kept)[0]}
    lines = [f"train RMSE     {errors['train_rmse']:.4g} on {kept.n_measurements:,} entries"]
    if held is not None:
        errors["heldout_rmse"], errors["heldout_standard_error"] = _rmse(recovery, held)
        errors["n_heldout"] = held.n_measurements
        lines.append(
            f"held-out RMSE  {errors['heldout_rmse']:.4g} +- {errors['heldout_standard_error']:.2g} on "
            f"{held.n_measurements:,} entries that the model never saw"
        )
    recovery = recovery.with_ids(source.row_ids, source.col_ids)
    _finish(file, output, recovery, errors, lines, seconds, source.notes, as_json)


def _rmse(recovery: dmf.Recovery, observations: dmf.SampledEntries) -> tuple[float, float]:
    """Root-mean-square error and its standard error (delta method)."""
    squares = (recovery.predict(observations.rows, observations.cols) - observations.values) ** 2
    rmse = math.sqrt(np.mean(squares, dtype=np.float64))
    return rmse, float(np.std(squares) / (2 * max(rmse, 1e-300) * math.sqrt(squares.size)))


@click.command()
@click.argument("file", type=_INPUT)
@_model_options("Rank of the approximation")
@common_options
def factorize(file, output, seed, as_json, **options):
    """Approximate a fully known matrix by one of low rank.

    FILE is an .npy or .npz file, a Matrix Market file, or delimited text with row, column and value of every entry.
    """
    source = read_matrix(file)
    d1, d2 = source.matrix.shape
    output = _begin(file, output, (*source.notes, f"{d1:,} x {d2:,} matrix"), as_json)
    begin = time.perf_counter()
    recovery = dmf.factorize(source.matrix, seed=seed, **options)
    seconds = time.perf_counter() - begin
    size = np.linalg.norm(source.matrix)
    error = float(np.linalg.norm(recovery.product() - source.matrix) / size) if size else 0.0
    lines = [f"relative error {error:.4g} (Frobenius norm)"]
    recovery = recovery.with_ids(source.row_ids, source.col_ids)
    _finish(file, output, recovery, {"relative_error": error}, lines, seconds, source.notes, as_json)


@click.command()
@click.argument("file", type=_INPUT)
@_model_options("Upper bound on the rank")
@_iterations_option
@_holdout_option("measurements")
@common_options
def sense(file, output, holdout, seed, as_json, **options):
    """Recover a matrix from linear measurements y_i = <A_i, X>.

    FILE is an .npz file with the arrays A (m, d1, d2) and y (m,).
    """
    operator, values, notes = read_sensing(file)
    measured = dmf.LinearMeasurements(operator, values)
    d1, d2 = measured.shape
    output = _begin(file, output, (*notes, f"{values.shape[0]:,} measurements of a {d1:,} x {d2:,} matrix"), as_json)
    kept, held = measured.split(holdout, seed) if holdout else (measured, None)
    recovery, seconds = _timed(dmf.sense, kept, seed=seed, **options)
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


def _begin(file: Path, output: Path | None, found: Sequence[str], as_json: bool) -> Path:
    """Where the model goes, known to be writable before the work begins; says what was found in the file."""
    output = Path(f"{file.stem}.dmf.npz") if output is None else output
    check_writable(output)
    check_writable(_report_path(output))
    for sentence in found:
        note(sentence, as_json)
    return output


def _timed(solve: Callable[..., dmf.Recovery], data: Any, **options: Any) -> tuple[dmf.Recovery, float]:
    """What `solve` returns and the seconds that it took; shows its progress."""
    progress = Progress()
    begin = time.perf_counter()
    recovery = solve(data, callback=progress.solver, **options)
    seconds = time.perf_counter() - begin
    progress.done()
    return recovery, seconds


def _report_path(output: Path) -> Path:
    return output.with_name(output.name.removesuffix(".npz") + ".json")


def _finish(
    file: Path,
    output: Path,
    recovery: dmf.Recovery,
    errors: Mapping[str, Any],
    lines: Sequence[str],
    seconds: float,
    notes: Sequence[str],
    as_json: bool,
) -> None:
    """Write model and report, print the summary; exit code 1 if the solve was interrupted or diverged."""
    recovery.options.update(errors)
    recovery.save(output)
    report = {
        "file": str(file),
        "shape": list(recovery.shape),
        "notes": list(notes),
        "options": recovery.options,
        "status": {"reason": recovery.status.reason, "advice": recovery.status.advice},
        "seconds": seconds,
        **errors,
        "model": str(output),
        "history": {name: np.asarray(column).tolist() for name, column in recovery.history.items()},
    }
    write_text(_report_path(output), to_json(report) + "\n")
    shown = {key: value for key, value in report.items() if key != "history"}
    parts = [f"rank {recovery.options['rank']}", f"depth {recovery.options['depth']}"]
    parts += [f"noise {recovery.options['noise']:.3g}"] * (not recovery.options["exact"])
    parts += ["row and column offsets"] * bool(recovery.options["offsets"])
    summary = [
        f"model          {', '.join(parts)}; {recovery.network.n_parameters:,} weights",
        *lines,
        f"status         {recovery.status}",
        f"time           {seconds:.1f} s",
        f"written        {output} and {_report_path(output).name}",
    ]
    emit(as_json, shown, summary)
    if recovery.status.reason in ("interrupted", "diverged"):
        click.echo(f"Error: {recovery.status.reason}; the last good state was written to {output}.", err=True)
        raise click.exceptions.Exit(1)
