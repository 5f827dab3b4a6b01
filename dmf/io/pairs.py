"""Lists of positions to predict, and of rows to rank, in delimited text."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from dmf.io.cells import Cells, Stated
from dmf.io.delimited import DelimitedText, open_delimited
from dmf.io.messages import ignored, shown
from dmf.io.reading import readable
from dmf.io.roles import position, role_of

_HOW = Cells(Stated())


@dataclass(frozen=True)
class Pairs:
    """Positions to predict: the ids of row and column of each.

    Attributes
    ----------
    row_ids, col_ids : list of str
    notes : tuple of str
    times : float64 array or None
        If a column of times was named.
    """

    row_ids: list[str]
    col_ids: list[str]
    notes: tuple[str, ...]
    times: np.ndarray | None = None


def read_pairs(
    path: str | os.PathLike,
    known_rows: Container[str],
    known_cols: Container[str],
    header: bool | None = None,
    time: str | None = None,
) -> Pairs:
    """Read positions to predict, as lines of row id and column id.

    Parameters
    ----------
    path : path
        Delimited text; see `dmf.io.delimited.open_delimited`. Further columns are ignored.
    known_rows, known_cols : containers of str
        Ids that exist. The first of several lines is a header if neither its row nor its column is known, and they are headings
        that such files have ("row", "user_id", "movieId", ...), or words above ids that all have digits, or text above numbers.
        Any other line is a pair: new rows and columns are predicted, too, and whether ids are known is not checked here.
    header : bool, optional
        Whether the first line is a header.
    time : str, optional
        The column of times, by name or number from 1; a name stands in a header.

    Returns
    -------
    Pairs

    Raises
    ------
    FileError
        If the file cannot be read or has no such lines.
    """

    def plausible(record):
        return record[0].strip() in known_rows and record[1].strip() in known_cols

    rows: list[str] = []
    cols: list[str] = []
    fields: list[str] = []
    if time is not None and not time.isdecimal() and header is None:
        header = True
    with readable(path) as file, open_delimited(file, ("row id", "column id"), plausible) as text:
        unknown = not text.single and text.first[0] not in known_rows and text.first[1] not in known_cols
        about_header: list[str] = []
        if header or (header is None and unknown and _is_header(text, 2)):
            text.skip_header()
            about_header = [f"the first line ({_first(text, 2)}) is taken as a header (--no-header takes it as a pair)"]
        elif unknown and header is None:
            about_header = [f"the first line ({_first(text, 2)}) is taken as a pair (--header takes it as a header)"]
        names = text.first if text.n_skipped else None
        at = None if time is None else position(time, names, text.width, path, "--time")
        one: dict[str, str] = {}  # so that a million lines hold each id once
        for line, record in text:
            row, col = record[0].strip(), record[1].strip()
            if not (row and col):
                raise text.error("an id is empty. Give both, or leave the line out.", line)
            rows.append(one.setdefault(row, row))
            cols.append(one.setdefault(col, col))
            if at is not None:
                fields.append(record[at])
                if not np.isfinite(_HOW.times(fields[-1:])[0]):
                    raise text.error(
                        f"the time is {shown(fields[-1])}. Give a number, or a date such as 2024-01-31.", line
                    )
        if not rows:
            raise text.error("a header, but no pair follows. Give at least one line of row id and column id.")
        notes = (*_notes(text, [0, 1, *([] if at is None else [at])]), *about_header)
        return Pairs(rows, cols, notes, None if at is None else _HOW.times(fields))


def read_row_ids(
    path: str | os.PathLike, known: Container[str], header: bool | None = None
) -> tuple[list[str], tuple[str, ...]]:
    """Read ids of rows, the first column of delimited text.

    Parameters
    ----------
    path : path
        See `dmf.io.delimited.open_delimited`. Further columns are ignored.
    known : container of str
        Ids that exist. The first of several lines is a header if its id is not known, on the conditions of `read_pairs`. Whether
        all other ids are known is not checked.
    header : bool, optional
        Whether the first line is a header.

    Returns
    -------
    ids : list of str
    notes : tuple of str

    Raises
    ------
    FileError
        If the file cannot be read or has no such lines.
    """
    with readable(path) as file, open_delimited(file, ("row id",), lambda record: record[0].strip() in known) as text:
        if header or (header is None and not text.single and text.first[0] not in known and _is_header(text, 1)):
            text.skip_header()
        ids = [record[0].strip() for _, record in text]
        if not ids:
            raise text.error("a header, but no row id follows. Give at least one.")
        return ids, tuple(_notes(text, [0]))


def _first(text: DelimitedText, n_ids: int) -> str:
    return " and ".join(map(shown, text.first[:n_ids]))


def _notes(text: DelimitedText, used: Container[int]) -> list[str]:
    names = text.first if text.n_skipped else [f"number {k}" for k in range(1, text.width + 1)]
    about = "a header" if text.n_skipped else "no header"
    others = [name for k, name in enumerate(names) if k not in used]
    return [f"{text.dialect()}, {about}", *text.comments(), *ignored("columns", others)]


def _is_header(text: DelimitedText, n_ids: int) -> bool:
    """Whether the first record, whose ids are unknown, is a header rather than new ids."""
    if all(role_of(name) in ("row", "column", "name") for name in text.first[:n_ids]):
        return True
    columns = [(cells[0], cells[1:]) for cells in zip(*text.sample, strict=True)]
    words = [not _digits(name) and len(below) > 0 and all(map(_digits, below)) for name, below in columns[:n_ids]]
    above_numbers = [
        not _HOW.is_missing(name) and not _HOW.is_meant(name) and len(below) > 0 and all(map(_HOW.is_number, below))
        for name, below in columns
    ]
    return all(words) or any(above_numbers)


def _digits(text: str) -> bool:
    return any(map(str.isdigit, text))
