"""One line on a terminal that tells what is being done. It is our own: importing a package for it takes a tenth of a second."""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import Any

import click

import dmf
from dmf.io.messages import printable
from dmf.solvers import Snapshot

_FIRST, _EVERY = 0.4, 0.5  # seconds until the line appears, and between its changes where nothing is heard of
_WIDTH = 78
_QUIET = "dmf.quiet"  # in the context of a command


def set_quiet(quiet: bool) -> None:
    """Whether the command that runs shows no progress."""
    click.get_current_context().meta[_QUIET] = quiet


class Progress:
    """One line on a terminal that is rewritten as work goes on; nothing where stderr is no terminal, or after --quiet.

    As a context it clears the line at its end. The line is rewritten twice a second even where nothing is heard: so one sees
    how long a stage takes.
    """

    def __init__(self) -> None:
        context = click.get_current_context(silent=True)
        quiet = context is not None and context.meta.get(_QUIET, False)
        self._shown = not quiet and sys.stderr is not None and sys.stderr.isatty()  # None: closed by the caller
        self._last = self._begin = time.monotonic()
        self._text = self._compiling = ""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *problem: object) -> None:
        self.done()

    def stage(self, name: str) -> None:
        """Tell what is being done from now on."""
        self._begin = time.monotonic()
        self._tell(name)

    def reading(self, lines: int, share: float) -> None:
        """Tell how much of a file has been read."""
        seconds = time.monotonic() - self._begin
        told = f", {share:.0%} of the file" if share > 0 else ""
        left = f", {seconds * (1 / share - 1):.0f} s left" if share > 0.02 and seconds > 1 else ""
        self._tell(f"reading and numbering: {lines:,} rows{told}{left}")

    def __call__(self, label: str, snapshot: Snapshot) -> None:
        """Show a snapshot of descent, at most ten times a second."""
        self._snapshot(label, snapshot.iteration, f"loss {snapshot.loss:.4g}")

    def solver(self, snapshot: Snapshot) -> None:
        """The callback of `dmf.complete` and `dmf.sense`, whose loss is half the mean square of the residuals."""
        noise = snapshot.findings.get("noise", math.nan)
        level = f", noise {noise:.3g}" if math.isfinite(noise) and noise > 0 else ""
        label = f"{snapshot.fit}, {snapshot.stage}" if snapshot.fit else snapshot.stage
        self._snapshot(label, snapshot.iteration, f"RMSE {math.sqrt(2 * snapshot.loss):.4g}{level}")

    def _snapshot(self, label: str, iteration: int, text: str) -> None:
        if self._shown and time.monotonic() - self._last >= 0.1:
            self._tell(f"{label}: iteration {iteration:,}, {text}", at_once=True)

    def rank(self, step: dmf.completion.RankStep) -> None:
        """Show a step of a rank path."""
        self._tell(f"rank {step.rank} took {step.seconds:.1f} s: held-out RMSE {step.heldout_rmse:.4g}", at_once=True)

    def compiles(self) -> Any:
        """Context in which the compilation of kernels is told, too."""
        if not self._shown:
            return self
        from numba.core import event

        progress = self

        class Listener(event.Listener):
            def on_start(self, event: Any) -> None:
                progress._compiling = "compiling kernels (first use only)"

            def on_end(self, event: Any) -> None:
                progress._compiling = ""

        return event.install_listener("numba:compile", Listener())

    def done(self) -> None:
        """Clear the line."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            click.echo("\r" + " " * _WIDTH + "\r", nl=False, err=True)

    def _tell(self, text: str, at_once: bool = False) -> None:
        self._text = text
        if not self._shown or self._ended.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()
        if at_once:
            self._draw()

    def _tick(self) -> None:
        wait = _FIRST
        while not self._ended.wait(wait):
            wait = _EVERY
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            self._last = time.monotonic()
            text = f"{self._compiling or self._text}, {self._last - self._begin:.1f} s"
            click.echo(f"\r{printable(text)[:_WIDTH]:<{_WIDTH}}", nl=False, err=True)
