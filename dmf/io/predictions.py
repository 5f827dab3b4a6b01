"""Predictions as csv."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dmf.errors import ShapeError
from dmf.io.writing import write_atomically


def write_predictions(
    path: str | os.PathLike,
    row_ids: Sequence[str],
    col_ids: Sequence[str],
    values: Mapping[str, np.ndarray],
    names: tuple[str, str] = ("row", "column"),
) -> None:
    """Write predictions as csv with two columns of ids, which have these names, and those of `values`, whole or not at all.

    Parameters
    ----------
    path : path
    row_ids, col_ids : sequences of str, length n
    values : mapping of column names to arrays, shape (n,)
        NaN: an empty cell.
    names : (str, str)

    Raises
    ------
    FileError
        If the file cannot be written.
    ShapeError
        If the lengths differ.
    """
    lines = format_predictions(row_ids, col_ids, values, names)
    write_atomically(path, lambda file: file.writelines(line.encode() for line in lines))


def format_predictions(
    row_ids: Sequence[str],
    col_ids: Sequence[str],
    values: Mapping[str, np.ndarray],
    names: tuple[str, str] = ("row", "column"),
) -> Iterator[str]:
    """Lines that `write_predictions` writes, line ends included.

    Numbers have as many digits as their dtype needs to be read back unchanged.

    Raises
    ------
    ShapeError
        If the lengths differ.
    """
    lengths = len(row_ids), len(col_ids), *map(len, values.values())
    if len(set(lengths)) > 1:
        raise ShapeError(
            f"row_ids, col_ids and values have lengths {lengths}, but each prediction has one of each.",
            argument="row_ids, col_ids, values",
            value=lengths,
        )

    class Line:
        def write(self, line: str) -> str:
            return line  # which writerow hands on

    writer: Any = csv.writer(Line(), lineterminator="\n")
    rows = zip(row_ids, col_ids, *map(_as_text, values.values()), strict=True)
    return map(writer.writerow, itertools.chain([(*names, *values)], rows))


def _as_text(values: np.ndarray) -> Iterator[str]:
    number: Callable[[Any], str] = "{:.9g}".format if values.dtype == np.float32 else repr
    return ("" if value != value else number(value) for value in values.tolist())
