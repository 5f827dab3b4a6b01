"""Ctrl-C that neither gets lost in a compiler nor breaks what it is compiling, and other requests to end that do the same."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_COMPILERS = ("numba", "llvmlite")
# What asks a process to end, and the handler that Python begins with; Windows has no SIGHUP.
REQUESTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGHUP"):
    REQUESTS[signal.SIGHUP] = signal.SIG_DFL


class Interrupts:
    """Whether Ctrl-C came and nobody has acted on it yet.

    Attributes
    ----------
    pending : bool
        Set by Ctrl-C; cleared by whoever ends its work because of it.
    exit_code : int
        With which a program ends that was asked to, as shells count it: 128 and the number of the signal.
    """

    def __init__(self) -> None:
        self.pending = False
        self.exit_code = exit_code(signal.SIGINT)
        self._held = False

    def check(self) -> None:
        """Raise the KeyboardInterrupt that had to wait, or was lost in a callback from C."""
        if self.pending:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, Ctrl-C waits for its end, however often it comes: for files that only together make sense.

        One that nobody has acted on before acts at its end, too.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal: raises KeyboardInterrupt; within a compiler only the second time, not where held."""
        again, self.pending, self.exit_code = self.pending, True, exit_code(number)
        if self._held:
            return
        if again or not _compiling(frame):
            signal.default_int_handler(number, frame)


def exit_code(number: int) -> int:
    """Of a program that a signal ended."""
    return 128 + number


@contextmanager
def remembered_interrupts(whole_process: bool = False) -> Iterator[Interrupts]:
    """Within it, Ctrl-C while a kernel is loaded or compiled waits for the next `check`; else it acts at once, as ever.

    Where the `whole_process` is ours, SIGTERM and SIGHUP do what Ctrl-C does.

    Numba does that by way of callbacks from C. Python can raise nothing through them: it would print the KeyboardInterrupt as
    ignored and go on, at times with a kernel that is never finished.

    Contexts may be nested: all of them yield the same object. Outside the main thread, which alone gets signals, and where a
    program has a handler of its own, nothing is changed and nothing is ever pending.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Interrupts()
        return
    current = {number: signal.getsignal(number) for number in REQUESTS}
    interrupts = next((handler for handler in current.values() if isinstance(handler, Interrupts)), Interrupts())
    ours = REQUESTS if whole_process else {signal.SIGINT}
    taken = [number for number in ours if current[number] is REQUESTS[number]]
    for number in taken:
        signal.signal(number, interrupts)
    try:
        yield interrupts
    finally:
        for number in taken:
            signal.signal(number, current[number])


def _compiling(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _COMPILERS:
            return True
        frame = frame.f_back
    return False
