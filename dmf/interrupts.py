"""Ctrl-C that is not lost: Python drops an exception raised within a callback of a compiler, and a KeyboardInterrupt with it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupts:
    """Whether Ctrl-C came and nobody has acted on it yet.

    Attributes
    ----------
    pending : bool
        Set by Ctrl-C, together with the KeyboardInterrupt; cleared by whoever ends its work because of it.
    """

    def __init__(self) -> None:
        self.pending = False

    def check(self) -> None:
        """Raise the KeyboardInterrupt that was lost, if one was."""
        if self.pending:
            raise KeyboardInterrupt

    def __call__(self, number: int, frame: Any) -> None:
        """The handler of the signal."""
        self.pending = True
        signal.default_int_handler(number, frame)


@contextmanager
def remembered_interrupts() -> Iterator[Interrupts]:
    """Within it, Ctrl-C raises KeyboardInterrupt as ever, and is known of even if that exception was dropped on its way.

    Numba loads and compiles kernels by way of callbacks from C, for up to seconds at a time. Python can raise nothing through
    them: it prints the exception as ignored and goes on. That print is left out here, as the interrupt is not ignored.

    Contexts may be nested: all of them yield the same object. Outside the main thread, which alone gets signals, and where a
    program has a handler of its own, nothing is changed and nothing is ever pending.
    """
    current, interrupts = signal.getsignal(signal.SIGINT), Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    if current is not signal.default_int_handler:
        yield current if isinstance(current, Interrupts) else interrupts
        return
    report = sys.unraisablehook

    def quiet(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)

    signal.signal(signal.SIGINT, interrupts)
    sys.unraisablehook = quiet
    try:
        yield interrupts
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, current)
