"""The start of the program dmf: its commands are imported within the part that tells of a full disk in one line."""

from __future__ import annotations

import contextlib
import os
import sys


def main() -> None:
    """Run the program; what goes wrong outside its commands is one line on stderr, too."""
    try:
        from dmf_cli.commands import program

        program()
    except OSError as error:  # of help and usage messages: commands tell theirs
        with contextlib.suppress(OSError):
            print(f"Error: cannot write to stdout: {error.strerror or error}.", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        _drop_unwritable()


def _drop_unwritable() -> None:
    """Leave Python nothing to write when it ends: where it cannot, it would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by the caller
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
