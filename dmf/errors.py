"""Errors of dmf: each message holds the value got, the limit and its cause, and the way out."""

from __future__ import annotations

from typing import Any

_LONGEST = 1000  # characters of a message about a file


def printable(text: str) -> str:
    """The text with everything that is no visible character escaped; line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class DmfError(Exception):
    """Base class of every error that dmf raises on purpose."""


class ArgumentError(DmfError, ValueError):
    """An argument lies outside what the function accepts.

    Parameters
    ----------
    message : str
        The value got, the limit and its cause, the way out.
    argument : str
        Name of the offending argument.
    value : object
        What was passed (or the offending part of it).
    limit : object
        What would have been accepted.
    """

    def __init__(self, message: str, *, argument: str = "", value: Any = None, limit: Any = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.value = value
        self.limit = limit


class RankError(ArgumentError):
    """A rank is below 1 or above what the shape of the matrix allows."""


class ShapeError(ArgumentError):
    """Shapes of arrays do not fit each other."""


class DTypeError(ArgumentError):
    """An array has a dtype that dmf does not compute in, or two arrays have different ones."""


class BackendError(ArgumentError):
    """Arrays of different libraries or devices were mixed."""


class ObservationError(ArgumentError):
    """What was observed cannot be used: empty, not finite, or indices out of range."""


class FileError(DmfError):
    """A file cannot be read or written, or does not hold what it should.

    Parts of the message may come from the file: what is not printable is escaped, and what is long is cut.
    """

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 4 :]}"
        super().__init__(printable(message))


class MissingPackageError(DmfError, ImportError):
    """An optional package is needed and not installed."""
