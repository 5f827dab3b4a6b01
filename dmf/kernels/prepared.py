"""One number for each sample, in the orders in which passes meet them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from dmf.arrays.backend import Array


class Prepared:
    """Numbers of samples, such as measurements: who passes them again and again has them prepared once.

    Parameters
    ----------
    by_row : array, shape (m,)
        In the order of rows; contiguous. Nobody changes it while this object lives.
    to_columns : callable
        From that order to the order of columns.

    Attributes
    ----------
    made : dict
        What else kernels made of the numbers, by what they made it for.
    """

    def __init__(self, by_row: Array, to_columns: Callable[[Array], Array]) -> None:
        self.by_row, self._to_columns = by_row, to_columns
        self.made: dict[Any, Any] = {}

    @cached_property
    def by_column(self) -> Array:
        """In the order of columns; made when first needed."""
        return self._to_columns(self.by_row)

    def of_side(self, side: int) -> Array:
        """In the order of the rows (side 0) or of the columns (side 1)."""
        return self.by_column if side else self.by_row
