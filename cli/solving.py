"""What the commands that solve share: files checked before, the solve and its time, what is written and told after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import dmf
from dmf.arrays.interrupts import remembered_interrupts
from dmf.completion.calls import solve_on
from dmf.io.writing import check_writable, json_text
from dmf.solvers import Outcome
from dmf_cli.common import check_distinct, echo, emit, note, report_path, save, summary_of
from dmf_cli.progress import Progress


def model_path(file: Path, output: Path | None, suffix: str = ".dmf.npz") -> Path:
    return Path(f"{file.stem}{suffix}") if output is None else output


def check_names(
    file: Path, model: Path | None, checkpoint: dmf.Checkpoint | None = None, **others: Path | None
) -> None:
    """Input, model, its report, the checkpoint and the other files written are all different files."""
    written = {"the_model": model, "the_JSON_beside_the_model": model and report_path(model)}
    check_distinct(FILE=file, **written, the_checkpoint=checkpoint and checkpoint.path, **others)


def begin(model: Path | None, others: Sequence[Path | None], found: Sequence[str], as_json: bool) -> None:
    """All files are known to be writable before the work begins; says what was found in the input."""
    for path in (model, model and report_path(model), *others):
        if path is not None:
            check_writable(path)
    for sentence in found:
        note(sentence, as_json)


def timed(
    solve: Callable[..., dmf.Recovery], data: dmf.Observations, device: str, callback: bool = False, **options: Any
) -> tuple[dmf.Recovery, float]:
    """What `solve` returns, in NumPy arrays, and the seconds that it took; with `callback`, it shows its progress."""
    begin = time.perf_counter()
    with Progress() as progress, progress.compiles():
        progress.stage("preparing the fit")
        if callback:
            options["callback"] = progress.solver
        recovery = solve_on(device, solve, data, **options)
    return recovery, time.perf_counter() - begin


def keep(
    file: Path,
    model: Path | None,
    recovery: dmf.Recovery,
    errors: Mapping[str, float],
    seconds: float,
    notes: Sequence[str],
    **options: Any,
) -> dict[str, Any]:
    """Write the model, before anything else can fail, and beside it in JSON what is returned: what the command tells."""
    report = {
        "file": str(file),
        "shape": list(recovery.shape),
        "notes": list(notes),
        **summary_of(recovery),
        "seconds": seconds,
        **errors,
    }
    if model is not None:
        report["model"] = str(model)
        history = {name: np.asarray(column).tolist() for name, column in recovery.history.items()}
        text = json_text(report | {"history": history})
        try:
            save(recovery, model, text, **options)
        except KeyboardInterrupt:
            echo(kept_in(model), err=True)
            raise
    return report


def kept_in(model: Path) -> str:
    return f"the fit had ended: its model is in {model}"


def tell(
    model: Path | None,
    filled: Path | None,
    recovery: dmf.Recovery,
    report: Mapping[str, Any],
    lines: Sequence[str],
    as_json: bool,
) -> None:
    """Print the summary; the exit code tells if the solve was interrupted or diverged, which wrote its last good state."""
    found = recovery.found
    parts = [f"rank {found.rank}", *[f"noise {found.noise:.3g}"] * (found.noise > 0)]
    parts += ["row and column offsets"] * found.offsets
    if recovery.bounds is not None:
        parts.append("predictions between {:g} and {:g}".format(*recovery.bounds))
    summary = [
        f"model          {', '.join(parts)}",
        *lines,
        f"result         {recovery.message}",
        f"time           {report['seconds']:.1f} s",
        f"written        {model} and {report_path(model).name}"
        if model
        else "model          not kept (--model FILE keeps it)",
    ]
    emit(as_json, report, summary)
    if recovery.outcome.broken_off:
        echo(f"Error: {recovery.outcome.name.lower()}; the last good state was written to {model or filled}.", err=True)
        with remembered_interrupts() as interrupts:
            raise click.exceptions.Exit(interrupts.exit_code if recovery.outcome is Outcome.INTERRUPTED else 1)
