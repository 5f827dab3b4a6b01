"""The start of the program dmf: quick to import, so that Ctrl-C during the imports that follow is one line, like a full disk."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


def main() -> None:
    """Run the program; what goes wrong outside its commands is one line on stderr, too."""
    _fill_closed_streams()
    try:
        with ended_by_interrupts():
            from dmf_cli.commands import program
        program()
    except OSError as error:  # of help and usage messages: commands tell theirs
        with contextlib.suppress(OSError):
            print(f"Error: cannot write to stdout: {error.strerror or error}.", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        _drop_unwritable()


@contextlib.contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """Within it, Ctrl-C ends the process at once: raised within an import, it would come as a long traceback, or get lost."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as in the background of a shell
        yield
        return
    signal.signal(signal.SIGINT, _end)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"Error: interrupted.\n")
    os._exit(128 + number)


def _fill_closed_streams() -> None:
    """Where the caller closed a standard stream, the next file opened would take its number, and get what is meant for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _drop_unwritable() -> None:
    """Leave Python nothing to write when it ends: where it cannot, it would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by the caller
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
