"""One line on a terminal that tells what is being done. It is our own: importing a package for it takes a tenth of a second."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from typing import Any

import click

import dmf
from dmf.io.messages import printable
from dmf.solvers import Snapshot

_FIRST, _EVERY = 0.4, 0.2  # seconds until the line appears, and between its changes
_WIDTH = 78
_QUIET = "dmf.quiet"  # in the context of a command


def set_quiet(quiet: bool) -> None:
    """Whether the command that runs shows no progress."""
    click.get_current_context().meta[_QUIET] = quiet


class Progress:
    """One line on a terminal that tells what is done, and for how long; nothing where stderr is no terminal, or after --quiet.

    A context, at whose end the line is cleared. A thread rewrites it: so one sees that time passes where nothing is heard.
    """

    def __init__(self) -> None:
        context = click.get_current_context(silent=True)
        quiet = context is not None and context.meta.get(_QUIET, False)
        self._shown = not quiet and sys.stderr is not None and sys.stderr.isatty()  # None: closed by the caller
        self._begin = time.monotonic()
        self._text = self._compiling = self._fit = ""
        self._fit_began, self._fit_took = self._begin, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Progress:
        if self._shown:
            self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._shown:
            self._ended.set()
            self._thread.join()

    def _draw(self) -> None:
        wait = _FIRST
        while not self._ended.wait(wait):
            wait = _EVERY
            if work := self._compiling or self._text:
                text = printable(f"{work}, {time.monotonic() - self._begin:.1f} s")
                click.echo(f"\r{text[:_WIDTH]:<{_WIDTH}}", nl=False, err=True)
        click.echo("\r" + " " * _WIDTH + "\r", nl=False, err=True)

    def stage(self, name: str) -> None:
        """Tell what is being done from now on."""
        self._begin = self._fit_began = time.monotonic()
        self._text = name

    def reading(self, lines: int, share: float) -> None:
        """Tell how much of a file has been read."""
        seconds = time.monotonic() - self._begin
        told = f", {share:.0%} of the file" if share > 0 else ""
        left = f", {seconds * (1 / share - 1):.0f} s left" if share > 0.02 and seconds > 1 else ""
        self._text = f"reading and numbering: {lines:,} rows{told}{left}"

    def __call__(self, label: str, snapshot: Snapshot) -> None:
        """Show a snapshot of descent."""
        self._text = f"{label}: iteration {snapshot.iteration:,}, loss {snapshot.loss:.4g}"

    def solver(self, snapshot: Snapshot) -> None:
        """The callback of `dmf.complete` and `dmf.sense`, whose loss is half the mean square of the residuals."""
        noise = snapshot.findings.get("noise", math.nan)
        level = f", noise {noise:.3g}" if math.isfinite(noise) and noise > 0 else ""
        label = f"{snapshot.fit}, {snapshot.stage}" if snapshot.fit else snapshot.stage
        rmse = math.sqrt(2 * snapshot.loss)
        self._text = f"{label}: iteration {snapshot.iteration:,}, RMSE {rmse:.4g}{level}{self._left(snapshot.fit)}"

    def _left(self, fit: str) -> str:
        """The time left of the second of two fits, which takes about as long as the first."""
        now = time.monotonic()
        if fit != self._fit:
            self._fit_took = now - self._fit_began if self._fit else 0.0
            self._fit, self._fit_began = fit, now if self._fit else self._fit_began
        left = self._fit_took - (now - self._fit_began)
        return f", about {left:.0f} s left" if left >= 1 else ""

    def table(self, work: str, done: int, total: int) -> None:
        """The callback of `dmf.complete_table`."""
        self._text = f"{work}: {done} of {total} done"

    def rank(self, step: dmf.completion.RankStep) -> None:
        """Show a step of a rank path."""
        self._text = f"rank {step.rank} took {step.seconds:.1f} s: held-out RMSE {step.heldout_rmse:.4g}"

    def compiles(self) -> Any:
        """Context in which the compilation of kernels is told, too."""
        if not self._shown:
            return contextlib.nullcontext()
        from numba.core import event

        progress = self

        class Listener(event.Listener):
            def on_start(self, event: Any) -> None:
                progress._compiling = "compiling kernels (first use only)"

            def on_end(self, event: Any) -> None:
                progress._compiling = ""

        return event.install_listener("numba:compile", Listener())
