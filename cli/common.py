"""What all commands share: options, error reports, tables, progress."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

import dmf
from dmf.arrays.backend import on_device_of
from dmf.arrays.checks import check_bounds
from dmf.arrays.interrupts import remembered_interrupts
from dmf.io.archive import TABLE_MODEL, read_archive
from dmf.io.messages import listed, number, printable
from dmf.io.reading import Entries
from dmf.io.writing import json_text, write_text
from dmf.recovery.intervals import half_width
from dmf_cli.progress import Progress, set_quiet

_SHOWN = 0.9  # coverage of the intervals that summaries mention
_NAMED = 5  # outliers, the largest


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --seed, --threads, --json, --quiet and --debug, and turn errors into one line on stderr with exit code 1.

    After Ctrl-C, SIGTERM and SIGHUP, which all end what is done in the same way, the exit code tells which one it was.

    With --json, stdout holds one JSON object then, too, with the member "error"; not after wrong usage (exit code 2).

    The command gets the keyword arguments `seed` and `as_json`.
    """

    @click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random choices."
    )
    @click.option("--threads", type=click.IntRange(min=1), help="Most threads to use; all cores unless given.")
    @click.option(
        "--json", "as_json", is_flag=True, help='Print one JSON object instead of text; of an error, {"error": ...}.'
    )
    @click.option("-q", "--quiet", is_flag=True, help="Show no progress; it is shown on terminals only.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapper(*args: Any, threads: int | None, quiet: bool, debug: bool, **options: Any) -> Any:
        set_quiet(quiet)
        with remembered_interrupts(whole_process=True) as interrupts:
            try:
                with contextlib.nullcontext() if threads is None else dmf.threads(threads):
                    return command(*args, **options)
            except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
                raise
            except (Exception, KeyboardInterrupt) as error:
                if debug:
                    traceback.print_exception(error)
                problem = _problem(error)
                for text, err in [
                    (f"Error: {problem}", True),
                    *[(json_text({"error": problem}), False)] * options["as_json"],
                ]:
                    with contextlib.suppress(
                        dmf.errors.FileError
                    ):  # nothing can be written there: the exit code remains
                        echo(text, err=err)
                code = interrupts.exit_code if isinstance(error, KeyboardInterrupt) else 1
                raise click.exceptions.Exit(code) from error

    return wrapper


def _problem(error: BaseException) -> str:
    """What went wrong, in one line."""
    match error:
        case KeyboardInterrupt():
            problem = "interrupted."
        case dmf.errors.DmfError():
            problem = f"{type(error).__name__}: {error}"
        case MemoryError():
            problem = "not enough memory. Take a smaller --rank or a smaller problem."
        case _:
            problem = f"unexpected {type(error).__name__}: {error} (--debug shows the traceback; please report it)"
    return " ".join(problem.split())


def echo(text: str, err: bool = False, nl: bool = True, data: bool = False) -> None:
    """Print on stdout or stderr what is printable, the rest escaped: texts from files may hold commands to the terminal.

    With `data`, the text goes as it is to a file or a pipe.
    FileError if the stream cannot be written to, as on a full disk. A closed pipe is left to click.
    """
    try:
        click.echo(text if data and not sys.stdout.isatty() else printable(text), err=err, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        stream = "stderr" if err else "stdout"
        raise dmf.errors.FileError(
            f"cannot write to {stream}: {error.strerror or error}. Send it elsewhere."
        ) from error


def emit(as_json: bool, report: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Print the report as JSON, or the lines."""
    echo(json_text(report) if as_json else "\n".join(lines))


def note(text: str, as_json: bool = False) -> None:
    """One line of information: on stdout, or on stderr where stdout holds JSON."""
    echo(text, err=as_json)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of an aligned table; numbers to the right."""
    names = list(rows[0])
    cells = [[number(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[k]) for row in cells)) for k, name in enumerate(names)]
    right = [isinstance(rows[0][name], (int, float)) for name in names]

    def line(texts: Sequence[str]) -> str:
        pairs = zip(texts, widths, right, strict=True)
        return "  ".join(
            text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in pairs
        ).rstrip()

    return [line(names), line(["-" * width for width in widths]), *map(line, cells)]


def summary_of(recovery: dmf.Recovery) -> dict[str, Any]:
    """What a recovery says of itself, for JSON."""
    heldout = recovery.heldout
    errors = None
    if heldout is not None:
        errors = {"rmse": heldout.rmse, "standard_error": heldout.standard_error, "count": heldout.count}
        if (half := _interval(recovery)) is not None:
            errors[f"interval_{_SHOWN:.0%}".removesuffix("%")] = half
    return {
        "outcome": recovery.outcome.name,
        "success": recovery.success,
        "message": recovery.message,
        "found": asdict(recovery.found),
        "settings": asdict(recovery.settings),
        "heldout": errors,
        **{
            name: None if part is None else asdict(part)
            for name, part in (("weighting", recovery.weighting), ("ranking", recovery.ranking))
        },
        "outliers": None if recovery.outliers is None else list(_outliers(recovery)),
        "drift": None if recovery.drift is None else recovery.drift.summary(),
        "runs": [asdict(run) | {"outcome": run.outcome.name} for run in recovery.runs],
        "nit": recovery.nit,
    }


def error_texts(recovery: dmf.Recovery) -> dict[str, str]:
    """The held-out errors in words, by name."""
    heldout, texts = recovery.heldout, {}
    if heldout is not None and math.isfinite(heldout.rmse + heldout.standard_error):
        error = f"{heldout.rmse:.4g} +- {heldout.standard_error:.2g}"
        texts["held-out RMSE"] = f"{error} on {heldout.count:,} entries, by a fit without them"
    if (ranking := recovery.ranking) is not None:
        texts["held-out NDCG"] = (
            f"{ranking.ndcg:.4g} +- {ranking.ndcg_error:.2g} of the ten best columns in {ranking.n_rows:,} rows, by a fit "
            f"without what was held out; recall {ranking.recall:.4g}, mean average precision {ranking.average_precision:.4g}"
        )
    if (half := _interval(recovery)) is not None:
        texts[f"{_SHOWN:.0%} intervals"] = f"prediction +- {half:.4g} (dmf predict --interval)"
    return texts


def _outliers(recovery: dmf.Recovery) -> Iterator[tuple[str, str, float]]:
    """Row, column and excess of each outlier, by name where there are names, the largest first."""
    assert recovery.outliers is not None
    rows, cols, values = (getattr(recovery.outliers, name) for name in ("rows", "cols", "values"))
    for k in np.argsort(-np.abs(values), kind="stable"):
        row, col = rows[k], cols[k]
        yield (
            str(row) if recovery.row_ids is None else recovery.row_ids[row],
            str(col) if recovery.col_ids is None else recovery.col_ids[col],
            float(values[k]),
        )


def outlier_texts(recovery: dmf.Recovery) -> dict[str, str]:
    """The largest outliers in words, where any were found."""
    if recovery.outliers is None or not len(recovery.outliers):
        return {}
    largest = islice(_outliers(recovery), _NAMED)
    told = "; ".join(f"{', '.join(listed([row, col]))}: {value:+.4g}" for row, col, value in largest)
    return {"outliers": f"{told}{'; ...' * (len(recovery.outliers) > _NAMED)} (row, column: excess)"}


def report_path(model: Path) -> Path:
    """The JSON beside a model."""
    return Path(str(model).removesuffix(".npz") + ".json")  # also of "." and "", which are refused as models later on


def save(recovery: dmf.Recovery | dmf.TableRecovery, model: Path, text: str, **options: Any) -> None:
    """Write a model and the JSON beside it: both, or on Ctrl-C between them both before it ends."""
    with remembered_interrupts() as interrupts, interrupts.held():
        recovery.save(model, **options)
        write_text(report_path(model), text + "\n")


def load_model(path: Path) -> dmf.Recovery | dmf.TableRecovery:
    """The model in a file, of a matrix or of a table."""
    header, _ = read_archive(path, header_only=True)
    return dmf.tables.load(path) if header.get("format") == TABLE_MODEL else dmf.load(path)


def column_rows(recovery: dmf.TableRecovery) -> list[dict[str, Any]]:
    """The columns of a table, each with its kind and its errors on held-out cells."""
    errors = (array.tolist() for array in recovery.column_errors())
    return [
        {
            "column": str(c.name),
            "kind": c.kind,
            "held-out RMSE": rmse,
            "in standard deviations": relative,
            "cells": cells,
        }
        for c, rmse, relative, cells in zip(recovery.columns, *errors, strict=True)
    ]


def _interval(recovery: dmf.Recovery) -> float | None:
    """Half the width of the intervals shown; None where the hold-out does not support them."""
    try:
        return half_width(recovery, _SHOWN, timed=True)
    except dmf.errors.ArgumentError:
        return None


def told_of_runs(recovery: dmf.Recovery) -> Iterator[str]:
    """What each run of a solver found, and why it ended; and what was chosen among them."""
    for run in recovery.runs:
        found = f"rank {run.rank}" + f", noise {run.noise:.4g}" * math.isfinite(run.noise)
        yield f"{run.fit}, {run.stage}: {found}, {run.nit:,} iterations, {run.seconds:.2f} s: {run.message}"
    if recovery.weighting is not None:
        yield f"taken: {recovery.message}"
        return
    chosen = "with row and column offsets" if recovery.found.offsets else "without offsets"
    asked = "as asked" if isinstance(recovery.settings.offsets, bool) else "as held-out entries decide"
    yield f"taken: rank {recovery.found.rank} {chosen} ({asked})"


def observed(source: Entries) -> tuple[dmf.SampledEntries, list[str]]:
    """Observations of what a file held, and what is to be told of it."""
    entries, notes = dmf.SampledEntries.from_entries(source), list(source.notes)
    if repeated := entries.n_measurements - entries.n_distinct:
        notes.append(f"{repeated:,} entries repeat a position; each counts as a measurement of its own")
    return entries, notes


def compare_ranks(entries: dmf.SampledEntries, device: str = "cpu", **options: Any) -> dmf.completion.RankPath:
    """`dmf.completion.rank_path` on a device, with its progress shown."""
    moved = entries.to_device(device)
    with Progress() as progress, on_device_of(moved.values):
        progress.stage("comparing ranks")
        return dmf.completion.rank_path(moved, callback=progress.rank, **options)


def check_distinct(**paths: Path | None) -> None:
    """Raise UsageError if two of the files of a command are one; by what they are to the user."""
    seen: dict[str, str] = {}
    for what, path in paths.items():
        if path is not None and (other := seen.setdefault(os.path.realpath(path), what)) != what:
            words = " and ".join(name.replace("_", " ") for name in (other, what))
            raise click.UsageError(
                f"{printable(str(path))} is both {words}: one would overwrite the other. Give each a name of its own."
            )


class InputFile(click.Path):
    """A file, or folder of files, to read. A dash is none: models are named after it, and some forms cannot come from a pipe."""

    def __init__(self, folders: bool = False) -> None:
        super().__init__(exists=True, dir_okay=folders, path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The path."""
        if value == "-":
            self.fail(
                "- does not stand for stdin here. Name a file; where text comes from a pipe, /dev/stdin (on Linux and macOS), or "
                "./- for a file of that name.",
                param,
                ctx,
            )
        path = Path(str(super().convert(value, param, ctx)))
        if path.is_dir() and not any(path.rglob("*.parquet")):
            self.fail(f"{printable(str(path))} is a directory without Parquet files.", param, ctx)
        return path


def _with_one_compilation_of_headers(ctx: click.Context, param: click.Parameter, device: str) -> str:
    """`device`; CuPy compiles the headers of its kernels once, not for each: that halves the time of its first use."""
    if device != "cpu":
        os.environ.setdefault("CUPY_NVRTC_USE_PCH", "1")  # of this program; read when CuPy is imported
    return device


device_option = click.option(
    "--device", metavar="cpu|cuda[:N]", default="cpu", show_default=True, callback=_with_one_compilation_of_headers,
    help="Where to compute: the CPU, or a CUDA device.",
)  # fmt: skip


def checkpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --checkpoint, --resume and --checkpoint-every; the command gets a `Checkpoint`, or None, as `checkpoint`.

    To be applied before `common_options`, which tells what is wrong with a checkpoint.
    """

    @click.option(
        "--checkpoint", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
        help="Keep what is done in FILE, so that --resume can go on from there, to the same last bits.",
    )  # fmt: skip
    @click.option("--resume", is_flag=True, help="Go on from the checkpoint, if it is there.")
    @click.option(
        "--checkpoint-every", "every", type=click.FloatRange(min=0), metavar="SECONDS",
        help="Time between two writes of a checkpoint, 60 unless given; also written at stage ends and on Ctrl-C.",
    )  # fmt: skip
    @functools.wraps(command)
    def wrapper(*args: Any, checkpoint: Path | None, resume: bool, every: float | None, **options: Any) -> Any:
        if checkpoint is None:
            if resume or every is not None:
                raise click.UsageError(
                    "--resume and --checkpoint-every are about a checkpoint. Name it: --checkpoint FILE."
                )
            return command(*args, checkpoint=None, **options)
        kept = dmf.Checkpoint(checkpoint, resume, **({} if every is None else {"seconds": every}))
        try:
            return command(*args, checkpoint=kept, **options)
        except (KeyboardInterrupt, click.exceptions.Exit) as error:
            interrupted = not isinstance(error, click.exceptions.Exit) or error.exit_code > 128
            if interrupted and checkpoint.exists():
                echo(f"with --checkpoint {checkpoint} --resume the same command goes on from here", err=True)
            raise

    return wrapper


class Bounds(click.ParamType):
    """Two numbers, of which one may be left out."""

    name = "LOW,HIGH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """(low, high); infinite where left out."""
        low, comma, high = str(value).partition(",")
        try:
            bounds = (float(low or "-inf"), float(high or "inf")) if comma else None
        except ValueError:
            bounds = None
        if bounds is None:
            self.fail(f"{value!r} is no pair of numbers such as 1,5 (or 0, with nothing after the comma).", param, ctx)
        try:
            check_bounds(bounds)
        except dmf.errors.ArgumentError as error:
            self.fail(str(error), param, ctx)
        return bounds
