"""Rows, or columns, of several files in one numbering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class Names:
    """Names in the order of their first appearance; without names, positions from 0 are the names.

    Parameters
    ----------
    known : iterable of str, optional
        Those that come first.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._places = {name: place for place, name in enumerate(known)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def places(self, ids: Sequence[str] | None, size: int) -> np.ndarray:
        """The place of each name, int64; those that are new get the next ones."""
        names = map(str, range(size)) if ids is None else ids
        return np.array([self._places.setdefault(name, len(self._places)) for name in names], np.int64)
