"""Which row or column of a model a name stands for: whole numbers lose their ".0", then names compare as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmf.errors import ObservationError
from dmf.io.forms import Form, text_of

_SIDES = ("row", "column")


def positions_of(names: Sequence[Any], known: Sequence[str] | None, size: int) -> np.ndarray:
    """Position of each name, -1 for unknown ones."""
    texts = [str(as_name(name)) for name in names]
    if known is None:
        return np.asarray([position_of(text, size) for text in texts], dtype=np.int64)
    whole = {_whole(name): position for position, name in enumerate(known)}
    table = whole | {name: position for position, name in enumerate(known)}
    return np.asarray([table.get(text, whole.get(_whole(text), -1)) for text in texts], dtype=np.int64)


def check_order(form: Form | None, known: Sequence[Sequence[str] | None], argument: str) -> None:
    """Raise unless rows and columns that entries name are in the order of those of a model, which they are counted by.

    Parameters
    ----------
    form : Form or None
        Of the entries.
    known : (names or None, names or None)
        Of the rows and the columns of the model; None: any will do. Further ones may follow, and all may have other names.
    argument : str
        What the entries are called.

    Raises
    ------
    ObservationError
        If some names are known, but not all are in their places.
    """
    for side, ids in enumerate(known):
        own = None if form is None else (form.row_ids, form.col_ids)[side]
        if ids is None or own is None or own[: len(ids)] == tuple(ids):
            continue
        places = positions_of(own[: len(ids)], ids, len(ids))
        wrong = np.flatnonzero(places != np.arange(len(places)))
        if wrong.size and (places >= 0).any():
            raise ObservationError(
                f"{argument} name their {_SIDES[side]} {wrong[0]} {own[wrong[0]]!r}, but that of the recovery is "
                f"{ids[wrong[0]]!r}: entries go by position. Pass {_SIDES[side]}s in the order of the recovery.",
                argument=argument,
                value=own[wrong[0]],
                limit=ids[wrong[0]],
            )


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
