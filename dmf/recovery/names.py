"""Which row or column of a model a name stands for: whole numbers lose their ".0", then names compare as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmf.io.forms import text_of


def positions_of(names: Sequence[Any], known: Sequence[str] | None, size: int) -> np.ndarray:
    """Position of each name, -1 for unknown ones."""
    texts = [str(as_name(name)) for name in names]
    if known is None:
        return np.asarray([position_of(text, size) for text in texts], dtype=np.int64)
    whole = {_whole(name): position for position, name in enumerate(known)}
    table = whole | {name: position for position, name in enumerate(known)}
    return np.asarray([table.get(text, whole.get(_whole(text), -1)) for text in texts], dtype=np.int64)


def as_name(name: Any) -> Any:
    """The text of a name that is a number or bytes; others as they are."""
    is_name = isinstance(name, (int, float, bytes, np.integer, np.floating)) and not isinstance(name, bool)
    return text_of(name) if is_name else name


def _whole(name: str) -> str:
    """A name without the ".0" of a whole number."""
    return name[:-2] if name.endswith(".0") and name[:-2].removeprefix("-").isdecimal() else name


def position_of(name: str, size: int) -> int:
    """Position that a name stands for among `size` rows or columns without names, which are numbered from 0; -1: none."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else -1  # which fit an int64
    return number if number < size else -1
