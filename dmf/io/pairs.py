"""Lists of positions to predict, and of rows to rank, in delimited text."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from dataclasses import dataclass

from dmf.io.delimited import DelimitedText, is_meant_as_number, is_missing, is_number, open_delimited
from dmf.io.messages import shown
from dmf.io.reading import readable

# Headings of ids, perhaps with a type behind a colon, as RecBole writes them.
_HEADING = re.compile(
    r"((row|col|column|user|person|member|customer|client|reader|viewer|item|movie|film|product|book|song|track|artist|station"
    r"|sensor|sample|gene|patient|drug)s?[ _.-]?(id|ids|name|key|code|index|no|nr|number)?|[ui]?id|name|key|index)(:\w+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pairs:
    """Positions to predict: the ids of row and column of each.

    Attributes
    ----------
    row_ids, col_ids : list of str
    notes : tuple of str
    """

    row_ids: list[str]
    col_ids: list[str]
    notes: tuple[str, ...]


def read_pairs(path: str | os.PathLike, known_rows: Container[str], known_cols: Container[str]) -> Pairs:
    """Read positions to predict, as lines of row id and column id.

    Parameters
    ----------
    path : path
        Delimited text; see `dmf.io.delimited.open_delimited`. Further columns are ignored.
    known_rows, known_cols : containers of str
        Ids that exist. The first of several lines is a header if neither its row nor its column is known, and either both are
        headings that such files have ("row", "user_id", "movieId", ...), or one of its fields is no number while all below it
        are. Any other line is a pair: new rows and columns are predicted, too, and whether ids are known is not checked here.

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
    with readable(path) as file, open_delimited(file, ("row id", "column id"), plausible) as text:
        unknown = not text.single and text.first[0] not in known_rows and text.first[1] not in known_cols
        notes: tuple[str, ...] = ()
        if unknown and _is_header(text, 2):
            text.skip_header()
        elif unknown:
            first = " and ".join(map(shown, text.first[:2]))
            notes = (
                f"the first line ({first}) is taken as a pair; if it is a header, call its columns row and column",
            )
        one: dict[str, str] = {}  # so that a million lines hold each id once
        for record in text:
            row, col = record[0].strip(), record[1].strip()
            if not (row and col):
                raise text.error("an id is empty. Give both, or leave the line out.", record)
            rows.append(one.setdefault(row, row))
            cols.append(one.setdefault(col, col))
        if not rows:
            raise text.error("a header, but no pair follows. Give at least one line of row id and column id.")
        return Pairs(rows, cols, (*text.notes(2), *notes))


def read_row_ids(path: str | os.PathLike, known: Container[str]) -> tuple[list[str], tuple[str, ...]]:
    """Read ids of rows, the first column of delimited text.

    Parameters
    ----------
    path : path
        See `dmf.io.delimited.open_delimited`. Further columns are ignored.
    known : container of str
        Ids that exist. The first of several lines is a header if its id is not known, but a heading that such files have; or if
        one of its fields is no number while all below it are. Whether all other ids are known is not checked.

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
        if not text.single and text.first[0] not in known and _is_header(text, 1):
            text.skip_header()
        ids = [record[0].strip() for record in text]
        if not ids:
            raise text.error("a header, but no row id follows. Give at least one.")
        return ids, text.notes(1)


def _is_header(text: DelimitedText, n_ids: int) -> bool:
    """Whether the first record, whose ids are unknown, is a header rather than new ids."""
    if all(map(_HEADING.fullmatch, text.first[:n_ids])):
        return True
    columns = list(zip(*text.sample, strict=True))
    return any(
        not is_missing(name) and not is_meant_as_number(name) and len(below) > 0 and all(map(is_number, below))
        for name, *below in columns
    )
