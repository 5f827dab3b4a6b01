"""Delimited text with one entry of a matrix in each line."""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from math import isfinite
from pathlib import Path

import numpy as np

from dmf.io.delimited import DelimitedText, as_number, is_meant_as_number, is_missing, is_number, open_delimited
from dmf.io.messages import shown
from dmf.io.reading import Entries, Matrix
from dmf.io.tables import is_table, read_table

_NO_VALUE = "Leave the line out if the entry is missing; for a table with missing cells pass --format table."
_TRIPLET = ("row id", "column id", "value")


def load_text(path: Path, layout: str = "auto") -> Entries | Matrix:
    """Read lines of row id, column id, value ("entries"), or a table; "auto" decides by the first lines."""
    needed = ("first column", "second column") if layout == "table" else _TRIPLET

    def plausible(record):
        return is_missing(record[len(needed) - 1]) or is_meant_as_number(record[len(needed) - 1])

    with open_delimited(path, needed, plausible) as text:
        if layout == "table" or (layout == "auto" and is_table(text.sample)):
            matrix, row_ids, col_ids, notes, table = read_table(text)
            return Matrix(matrix, row_ids, col_ids, notes, table)
        return _read_entries(text)


def _read_entries(text: DelimitedText) -> Entries:
    rows, cols, values = array("i"), array("i"), array("d")
    row_ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    col_ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    if _is_heading(text.first[2]):
        text.skip_header()
    for record in text:
        try:
            value = as_number(record[2])
        except ValueError:
            raise text.error(_reason(record[2].strip()), record) from None
        row, col = record[0].strip(), record[1].strip()
        if not (row and col and isfinite(value)):
            raise text.error(_reason(record[2].strip()) if row and col else "an id is empty. Give every id.", record)
        rows.append(row_ids[row])
        cols.append(col_ids[col])
        values.append(value)
    if not values:
        raise text.error("a header, but no entry follows. Give at least one line of row id, column id, value.")
    shape = len(row_ids), len(col_ids)
    return Entries(
        np.asarray(rows), np.asarray(cols), np.asarray(values), shape, tuple(row_ids), tuple(col_ids), text.notes(3)
    )


def _is_heading(field: str) -> bool:
    """Whether the third field of the first line heads a column; a decimal comma, 1_000 and 12% are numbers badly written."""
    letters, digits = any(map(str.isalpha, field)), any(map(str.isdigit, field))
    return field != "" and not is_meant_as_number(field) and (letters or not digits)


def _reason(field: str) -> str:
    if not field:
        return f"the value (third field) is empty. {_NO_VALUE}"
    if is_number(field):
        return f"the value is {shown(field)}, but entries are finite. {_NO_VALUE}"
    if is_meant_as_number(field):
        return f"the value is {shown(field)}, but numbers have a decimal point, not a comma. Replace it."
    return f"the value (third field) is {shown(field)}, which is no number. Lines are row id, column id, value."
