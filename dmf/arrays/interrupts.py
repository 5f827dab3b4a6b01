"""Ctrl-C that neither gets lost in a compiler nor breaks what it is compiling."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_COMPILERS = ("numba", "llvmlite")


class Interrupts:
    """Whether Ctrl-C came and nobody has acted on it yet.

    Attributes
    ----------
    pending : bool
        Set by Ctrl-C; cleared by whoever ends its work because of it.
    """

    def __init__(self) -> None:
        self.pending = False
        self._held = False

    def check(self) -> None:
        """Raise the KeyboardInterrupt that had to wait, or was lost in a callback from C."""
        if self.pending:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, Ctrl-C waits for its end, however often it comes: for files that only together make sense."""
        self.pending, self._held = False, True
        try:
            yield
        finally:
            self._held = False
        self.check()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal: raises KeyboardInterrupt; within a compiler only the second time, not where held."""
        again, self.pending = self.pending, True
        if self._held:
            return
        if again or not _compiling(frame):
            signal.default_int_handler(number, frame)


@contextmanager
def remembered_interrupts() -> Iterator[Interrupts]:
    """Within it, Ctrl-C while a kernel is loaded or compiled waits for the next `check`; else it acts at once, as ever.

    Numba does that by way of callbacks from C. Python can raise nothing through them: it would print the KeyboardInterrupt as
    ignored and go on, at times with a kernel that is never finished.

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
    signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, current)


def _compiling(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _COMPILERS:
            return True
        frame = frame.f_back
    return False
