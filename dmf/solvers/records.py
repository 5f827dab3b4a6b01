"""Rows of the history of a run that goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dmf.arrays.backend import as_array, to_host
from dmf.errors import ArgumentError

_COLUMNS = ("iteration", "loss", "seconds")
# These, what the solver found, and what the callback answered.
_Row = tuple[tuple[int, float, float], dict[str, float], dict[str, np.ndarray]]


class Records:
    """Rows of the history. The first answer of the callback fixes its columns; a row without an answer holds NaN there."""

    def __init__(self, columns: Mapping[str, np.ndarray], found: Collection[str]) -> None:
        """Go on from the columns of a history, of which the solver found some."""
        self._rows: list[_Row] = []
        for k in range(len(columns["iteration"]) if columns else 0):
            row = {name: column[k] for name, column in columns.items()}
            head = (int(row.pop("iteration")), float(row.pop("loss")), float(row.pop("seconds")))
            self._rows.append((head, {name: row.pop(name).item() for name in found}, row))
        self._first: dict[str, np.ndarray] = self._rows[0][2] if self._rows else {}

    def add(
        self,
        iteration: int,
        loss: float,
        seconds: float,
        found: dict[str, float],
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        """A row, with what the callback measured."""
        if measured is not None and not isinstance(measured, Mapping):
            raise ArgumentError(
                f"callback returned a {type(measured).__name__}, but it returns a mapping of names to numbers, or None. Return "
                "{'name': number}.",
                argument="callback",
                value=type(measured).__name__,
                limit="Mapping",
            )
        row = {name: to_host(as_array(value, name)) for name, value in (measured or {}).items()}
        for name, value in row.items():
            if value.dtype.kind not in "fiub" or name in (*_COLUMNS, *found):
                raise ArgumentError(
                    f"callback measured {name!r} of dtype {value.dtype}, but it returns real numbers or arrays of them, "
                    f"under names other than {', '.join((*_COLUMNS, *found))}, which the history has already. Convert or "
                    "rename it.",
                    argument="callback",
                    value=name,
                )
        self._first = self._first or row
        shapes, before = ({name: value.shape for name, value in r.items()} for r in (row, self._first))
        if row and shapes != before:
            raise ArgumentError(
                f"callback measured {shapes} (names and shapes) at iteration {iteration}, but {before} before. Return the "
                "same names and shapes each time.",
                argument="callback",
                value=shapes,
                limit=before,
            )
        self._rows.append(((iteration, loss, seconds), found, row))  # at once: Ctrl-C may come between any two steps

    def last_iteration(self) -> int:
        """Of the last row; -1 as long as there is none."""
        return self._rows[-1][0][0] if self._rows else -1

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the history; none as long as nothing is recorded."""
        if not self._rows:
            return {}
        heads, founds, answers = zip(*self._rows, strict=True)
        columns = dict(zip(_COLUMNS, map(np.asarray, zip(*heads, strict=True)), strict=True))
        measured = {
            name: np.stack([row.get(name, np.full(value.shape, np.nan)) for row in answers])
            for name, value in self._first.items()
        }
        return {**measured, **{name: np.asarray([row[name] for row in founds]) for name in founds[0]}, **columns}
