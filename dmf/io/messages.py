"""Words of messages: names and numbers as they are shown, and nothing that a terminal would obey."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from dmf.errors import MissingPackageError, printable

__all__ = ["ignored", "listed", "number", "package", "printable", "Progress", "shown", "silent", "times"]

Progress = Callable[[int, float], None]  # called with the lines read so far, and the share of the file that they are


def silent(lines: int, share: float) -> None:
    """No progress shown."""


_NAME_LENGTH = 40  # characters; longer names are cut


def shown(name: str) -> str:
    """A field or name as messages show it: quoted, escaped, not too long."""
    return repr(name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 3] + "...")


def listed(names: Sequence[str]) -> list[str]:
    """At most six names for a one-line note."""
    most = names if len(names) <= 6 else names[:5]
    texts = [name if 0 < len(name) <= _NAME_LENGTH and name.isprintable() else shown(name) for name in most]
    return texts if len(names) <= 6 else [*texts, f"and {len(names) - 5} more"]


def ignored(kind: str, names: Sequence[str]) -> list[str]:
    """Note on the columns or members that were left out, if any."""
    return [f"{kind} ignored: {', '.join(listed(names))}"] if names else []


def times(shape: Sequence[int]) -> str:
    """A shape in words, "3 x 4"."""
    return " x ".join(map(str, shape))


def number(value: Any) -> str:
    """A number as summaries show it: whole ones with their digits in groups, others with four digits; else its text.

    Of NaN, where there is none, a dash.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def package(name: str, path: object, extra: str) -> Any:
    """A package that is an extra of dmf; MissingPackageError, which names it, without it."""
    try:
        return import_module(name)
    except ImportError as error:
        needed = name.partition(".")[0]
        raise MissingPackageError(
            f"cannot read {path}: this needs the package {needed}. Run: pip install 'dmf[{extra}]'"
        ) from error
