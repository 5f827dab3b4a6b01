"""dmf complete, dmf factorize, dmf sense: from a file to a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import dmf
from dmf.arrays.backend import check_device
from dmf.io.matrices import read, read_matrix, read_sensing
from dmf.io.reading import Matrix
from dmf.recovery.codec import entropy_coder
from dmf.report.page import check_report_path, write_report
from dmf_cli.cluster import Cluster, check_options, joined, read_on_cluster, told_of_traffic, train_rmse
from dmf_cli.common import (
    Bounds,
    InputFile,
    checkpoint_options,
    common_options,
    compare_ranks,
    device_option,
    echo,
    error_texts,
    note,
    observed,
    outlier_texts,
    told_of_runs,
)
from dmf_cli.features import features_options, with_features
from dmf_cli.filling import kept_text, names_filled_table, write_filled
from dmf_cli.progress import Progress
from dmf_cli.reading import reading_options, timed_options
from dmf_cli.solving import begin, check_names, keep, kept_in, model_path, tell, timed
from dmf_cli.tables import complete_table, is_table

_OUTPUT = click.Path(path_type=Path)
_HOLDOUT = 0.1  # share of the entries


def _model_options(rank: str) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "-o",
                "--output",
                type=_OUTPUT,
                help="File to write; a model with FILE's name and .dmf.npz unless given.",
            ),
            click.option("--rank", type=click.IntRange(min=1), help=f"{rank}; found from the data unless given."),
        ):
            command = option(command)
        return command

    return decorate


_iterations_option = click.option(
    "--iterations", type=click.IntRange(min=0), default=10_000, show_default=True, help="Most iterations, for each fit."
)


def _holdout_option(help_text: str) -> Callable[..., Any]:
    return click.option(
        "--holdout", type=click.FloatRange(0, 1, max_open=True), show_default=str(_HOLDOUT), help=help_text
    )


def _holdout(share: float | None, single: bool, as_json: bool) -> float:
    """The share to hold out; nothing of a single measurement, unless the user asked for it."""
    if share is None and single:
        note("a single measurement: nothing is held out, so there is no honest error and no intervals", as_json)
        return 0.0
    return _HOLDOUT if share is None else share


@click.command()
@click.argument("file", type=InputFile(folders=True))
@_model_options("Upper bound on the rank")
@_iterations_option
@device_option
@_holdout_option("Share of the entries that a first fit does not see, for an honest error and intervals; 0: neither.")
@click.option(
    "--feedback", type=click.Choice(["explicit", "implicit"]), default="explicit", show_default=True,
    help="What entries are: values, or counts of what rows chose (clicks, plays), which rank the columns of each row.",
)  # fmt: skip
@click.option(
    "--offsets/--no-offsets",
    default=None,
    help="Row and column offsets in the model; decided by the data unless given.",
)
@click.option(
    "--outliers",
    is_flag=True,
    help="Some entries may be wrong: find them, and leave them out of the fit and its errors.",
)
@click.option(
    "--bounds", type=Bounds(), help="Least and largest value of a prediction, such as 1,5; none unless given."
)
@timed_options
@features_options
@click.option("--model", type=_OUTPUT, help="Model file to write beside a filled table, which -o names.")
@click.option(
    "--precision", type=click.Choice(["full", "posterior"]), default="full", show_default=True,
    help="Of the model file; posterior: a tenth of the size, up to what noise leaves unknown anyway.",
)  # fmt: skip
@click.option("--report", type=_OUTPUT, help="Report to write: pictures and numbers in one .html or .png file.")
@click.option("-v", "--verbose", is_flag=True, help="Tell what each run of a solver found, and why it ended.")
@click.option("--ranks", is_flag=True, help="Compare ranks for the report, as `dmf rank` does: one more fit for each.")
@click.option("--cluster", type=Cluster(), help="Fit on a Dask cluster, which reads FILE: Parquet, with --columns.")
@click.option("--memory-limit", metavar="4GB", help="Memory of each worker of --cluster local; more goes to disk.")
@common_options
@checkpoint_options
@click.pass_context
def complete(
    ctx,
    file,
    output,
    model,
    report,
    ranks,
    device,
    offsets,
    stated,
    cluster,
    memory_limit,
    checkpoint,
    precision,
    row_features,
    column_features,
    seed,
    as_json,
    verbose,
    **options,
):
    """Complete a matrix from some of its entries.

    FILE holds the known entries: delimited text, either with the columns row, column and value (ids may be any text; further
    columns are ignored) or as a table with missing cells (empty, NA, NaN, null); the same as Parquet (a file or a folder), Excel
    workbook or a database of DuckDB or SQLite; a Matrix Market file, an .npy file with NaN for missing entries, or an .npz file.

    In a table, each column may have a unit of its own; where all have one, as ratings and images do, it is completed as a matrix.
    --format says which, and otherwise the look of the columns decides. Columns of text with at most 50 different cells, which
    repeat, are categories of a table and filled as well; other text is left as it is. All that follows is about matrices.

    The error is measured, and intervals for `dmf predict --interval` follow, on entries that a first fit does not see. Then all
    entries are fitted, and this is what is written.

    Where -o names a table (.csv, .tsv, .parquet, .xlsx, .npy, or the suffix of FILE; .gz and .zst compress text), FILE is written
    there with its missing cells or values filled, all else as it was (but charts and pictures in workbooks); a model is then
    written only if --model names it.
    """
    filled = output if names_filled_table(output, file) else None
    if filled is None and model is not None:
        raise click.UsageError(
            "--model goes with a filled table (-o FILE.csv). Where -o names no table, it names the model."
        )
    if ranks and report is None:
        raise click.UsageError("--ranks is for a report. Name one with --report, or use `dmf rank`.")
    implicit = options["feedback"] == "implicit"
    if implicit and (filled is not None or ranks):
        raise click.UsageError(
            "--feedback implicit ranks columns: it fills no table, and chooses the rank itself. Leave --ranks out, name a model "
            "(-o FILE.npz) and ask it with `dmf predict --top`."
        )
    if precision == "posterior":
        if filled is not None and model is None:
            raise click.UsageError("--precision posterior is for a model, but none is kept. Name it with --model.")
        entropy_coder()  # that it is missing, nobody wants to hear after the fit
    if filled is None:
        model = model_path(file, output, ".dmfz" if precision == "posterior" else ".dmf.npz")
    check_names(file, model, checkpoint, the_filled_table=filled, the_report=report)
    if report is not None:
        check_report_path(report)
    check_device(device)
    if cluster is not None:
        check_options(
            file,
            stated,
            {
                "-o for a filled table": filled,
                "--report": report,
                "--device": device != "cpu",
                "--outliers": options["outliers"],
                "--row-features or --column-features": row_features or column_features,
                "--precision posterior": precision == "posterior",
                "--time": stated["time"],
            },
        )
        client = ctx.with_resource(joined(cluster, memory_limit))
        with Progress() as progress:
            progress.stage("reading")
            there = read_on_cluster(file, stated, client)
        size = "{:,} entries of a {:,} x {:,} matrix".format(there.n_measurements, *there.shape)
        begin(model, [], [size, f"dashboard of the cluster: {client.dashboard_link}"], as_json)
        options["offsets"] = "auto" if offsets is None else offsets
        options["holdout"] = _holdout(options["holdout"], there.n_distinct == 1, as_json)
        recovery, seconds = timed(
            dmf.complete, there, device, callback=True, seed=seed, checkpoint=checkpoint, **options
        )
        train = train_rmse(there, recovery)
        lines = [f"{name:<14} {text}" for name, text in {"train RMSE": f"{train:.4g}", **error_texts(recovery)}.items()]
        lines.append(f"traffic        {told_of_traffic(there, recovery)}")
        told = keep(file, model, recovery, {"train_rmse": train}, seconds, [size])
        tell(model, None, recovery, told, lines, as_json)
        return
    with Progress() as progress:
        progress.stage("reading")
        found = read(file, keep_text=filled is not None, progress=progress.reading, **stated)
    source = found.entries() if isinstance(found, Matrix) else found
    reasons: list[str] = []
    of_matrices = {
        "--rank": options["rank"],
        "--ranks": ranks,
        "--checkpoint": checkpoint,
        "--feedback implicit": implicit,
        "--offsets": offsets is not None,
        "--outliers": options["outliers"],
        "--precision posterior": precision == "posterior",
        "--row-features": row_features,
        "--column-features": column_features,
        "--device": device != "cpu",
    }
    if is_table(found, stated["layout"], of_matrices, reasons):
        complete_table(file, found, filled, model, report, options["bounds"], reasons, seed, as_json)
        return
    source, features = with_features(source, row_features, column_features, filled is None)
    with Progress() as progress, progress.compiles():
        progress.stage("sorting")
        told = (note for table in features.values() for note in table.notes)
        known, notes = observed(replace(source, notes=(*source.notes, *reasons, *told)))
    d1, d2 = known.shape
    text = None if filled is None else kept_text(file, filled, source)
    seen = known.n_distinct
    size = f"{known.n_measurements:,} entries of a {d1:,} x {d2:,} matrix ({seen / (d1 * d2):.2%} of its positions)"
    begin(model, [filled, report], [*notes, size], as_json)
    options["offsets"] = "auto" if offsets is None else offsets
    single = int(np.ptp(known.rows)) == int(np.ptp(known.cols)) == 0
    options["holdout"] = _holdout(options["holdout"], single, as_json)
    recovery, seconds = timed(
        dmf.complete, known, device, callback=True, seed=seed, checkpoint=checkpoint, **features, **options
    )
    for sentence in told_of_runs(recovery) if verbose else ():
        note(sentence, as_json)
    errors, facts = {}, error_texts(recovery)
    if not implicit:
        errors["train_rmse"] = train = _train_rmse(recovery)
        facts = {"train RMSE": f"{train:.4g}"} | facts
    lines = [f"{name:<14} {text}" for name, text in facts.items()]
    recovery = recovery.with_ids(source.row_ids, source.col_ids)
    lines += [f"{name:<14} {text}" for name, text in outlier_texts(recovery).items()]
    if precision == "posterior" and recovery.found.noise == 0:
        note("no noise was found, so that every digit counts: the model is kept in full precision", as_json)
        precision = "full"
    if precision == "posterior" and recovery.priors != (None, None):
        note("models with features are kept in full precision", as_json)
        precision = "full"
    told = keep(file, model, recovery, errors, seconds, notes, precision=precision)
    try:
        more: dict[str, Any] = {}
        if filled is not None and text is not None:
            more, line = write_filled(
                filled, text, np.asarray(recovery.predict(*text.holes[:, 2:].T, source.hole_times))
            )
            lines.append(line)
        if report is not None:
            facts = {"file": str(file), "entries": size, **facts, "seconds": seconds}
            path = None
            if ranks and not recovery.outcome.broken_off:
                share = options["holdout"] or _HOLDOUT
                trusted: Any = recovery.observations if options["outliers"] else known
                path = compare_ranks(trusted, device, holdout=share, offsets=options["offsets"], seed=seed)
            write_report(report, recovery, facts, path, title=f"Completion of {file.name}")
            more["report"] = str(report)
            lines.append(f"report         {report}")
    except BaseException:
        if model is not None:
            echo(kept_in(model), err=True)
        raise
    tell(model, filled, recovery, told | more, lines, as_json)


def _train_rmse(recovery: dmf.Recovery) -> float:
    fitted: Any = recovery.observations
    residuals = fitted.entries - recovery.predict(fitted.rows, fitted.cols, fitted.times)
    return math.sqrt(np.mean(residuals**2, dtype=np.float64))


@click.command()
@click.argument("file", type=InputFile())
@_model_options("Rank of the approximation")
@device_option
@reading_options
@common_options
def factorize(file, output, device, stated, seed, as_json, **options):
    """Approximate a fully known matrix by one of low rank.

    FILE is an .npy or .npz file, a Matrix Market file, or delimited text: a table, or lines with row,
    column and value of every entry.
    """
    output = model_path(file, output)
    check_names(file, output)
    check_device(device)
    source = read_matrix(file, **stated)
    d1, d2 = source.matrix.shape
    begin(output, [], (*source.notes, f"{d1:,} x {d2:,} matrix"), as_json)
    recovery, seconds = timed(dmf.factorize, dmf.FullMatrix(source.matrix), device, seed=seed, **options)
    size = np.linalg.norm(source.matrix)
    error = float(np.linalg.norm(recovery.product() - source.matrix) / size) if size else 0.0
    lines = [f"relative error {error:.4g} (Frobenius norm)"]
    recovery = recovery.with_ids(source.row_ids, source.col_ids)
    told = keep(file, output, recovery, {"relative_error": error}, seconds, source.notes)
    tell(output, None, recovery, told, lines, as_json)


@click.command()
@click.argument("file", type=InputFile())
@_model_options("Upper bound on the rank")
@_iterations_option
@device_option
@_holdout_option("Share of the measurements set aside for an honest error; 0: fit to all.")
@common_options
@checkpoint_options
def sense(file, output, device, holdout, checkpoint, seed, as_json, **options):
    """Recover a matrix from linear measurements y_i = <A_i, X>.

    FILE is an .npz file with the arrays A (m, d1, d2) and y (m,).
    """
    output = model_path(file, output)
    check_names(file, output, checkpoint)
    check_device(device)
    operator, values, notes = read_sensing(file)
    measured = dmf.LinearMeasurements(operator, values)
    d1, d2 = measured.shape
    begin(output, [], (*notes, f"{values.shape[0]:,} measurements of a {d1:,} x {d2:,} matrix"), as_json)
    holdout = _holdout(holdout, measured.n_measurements == 1, as_json)
    kept, held = measured.split(holdout, seed) if holdout else (measured, None)
    recovery, seconds = timed(dmf.sense, kept, device, callback=True, seed=seed, checkpoint=checkpoint, **options)
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
    told = keep(file, output, recovery, errors, seconds, notes)
    tell(output, None, recovery, told, lines, as_json)


def _relative_error(recovery: dmf.Recovery, observations: dmf.LinearMeasurements) -> float:
    size = float(np.linalg.norm(observations.values))
    return math.sqrt(2 * float(observations.loss(*recovery.factors()))) / size if size else 0.0
