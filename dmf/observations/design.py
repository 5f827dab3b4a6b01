"""Numbers known of each row, or of each column, which prior means of factors and offsets are linear in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dmf.arrays.backend import Array, from_host, namespace


@dataclass(frozen=True, eq=False)
class Design:
    """Numbers known of each row, or of each column.

    Parameters
    ----------
    columns : array, shape (n, p)
        Of mean square 1, or so.
    groups : tuple of int
        Numbers of adjacent columns that matter as much as each other, such as those for the levels of one category; p in all.
    """

    columns: Array
    groups: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Array]) -> Design:
        """Groups side by side, arrays (n, p)."""
        return cls(namespace(*parts).concat(list(parts), axis=1), tuple(part.shape[1] for part in parts))

    def beside(self, other: Design | None) -> Design:
        """The columns of both."""
        if other is None:
            return self
        xp = namespace(self.columns, other.columns)
        return Design(xp.concat([self.columns, other.columns], axis=1), self.groups + other.groups)

    def restricted(self, places: np.ndarray) -> Design:
        """Of the rows at some places."""
        return Design(namespace(self.columns).take(self.columns, from_host(places, self.columns), axis=0), self.groups)

    def moved(self, to: Callable[[Array], Array]) -> Design:
        """The same with each array ``to(array)`` in its place."""
        return Design(to(self.columns), self.groups)
