"""Missing cells of a text filled in its own layout: all else stays as it is, byte for byte."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError
from dmf.io.cells import Cells
from dmf.io.compressed import compressed
from dmf.io.delimited import BLANKS, DelimitedText
from dmf.io.excel import WORKBOOKS, write_sheet
from dmf.io.messages import shown
from dmf.io.writing import write_atomically

_DIGITS = 6  # significant, where a column has numbers with exponents


class Text:
    """A delimited text as it was read, and where its missing entries stand.

    Attributes
    ----------
    columns : tuple of int
        Columns that hold numbers.
    holes : int array, shape (n, 4)
        Of each missing cell that belongs to an entry of the matrix: number of its record after the header, its column, and row
        and column of the matrix. Sorted by record.
    n_left_empty : int
        Number of other cells that are missing: in rows and columns that hold no number.
    sheet : str or None
        Of the workbook that the text was made from.
    """

    def __init__(
        self,
        source: DelimitedText,
        lines: Sequence[str],
        how: Cells,
        columns: Sequence[int],
        holes: np.ndarray,
        n_left_empty: int = 0,
    ) -> None:
        self.columns, self.holes, self.n_left_empty = tuple(columns), holes, n_left_empty
        self._head, self._text, self._how = source.head, "".join(lines), how
        self._delimiter, self._width = source.delimiter, source.width
        self._skipped, self._path, self.sheet = source.n_skipped, Path(source.path), source.sheet

    def write_filled(
        self, path: str | os.PathLike, values: np.ndarray, texts: Iterable[tuple[int, int, str]] = ()
    ) -> None:
        """Write the text with its missing cells filled, compressed where the name ends in .gz or .zst; or the workbook it is of.

        Numbers get as many decimals as their column has, none where it holds whole numbers; all that count where it holds none.

        Parameters
        ----------
        path : path
        values : array, shape (n,)
            For each of the holes.
        texts : iterable of (record, column, text)
            For missing cells of columns of text, in quotes where the text or its column has some.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        cells = self._written(values, list(texts))
        if Path(path).suffix.lower() in WORKBOOKS:
            assert self.sheet is not None  # only a workbook is written as one
            write_sheet(path, self._path, self.sheet, self._cells(cells))
            return
        parts: list[str] = []
        for fields, filled in self._with_holes(cells):
            for column, cell in filled:
                raw = fields[2 * column]
                fields[2 * column] = raw.replace(raw.strip(), cell) if raw.strip() else cell
            parts += fields
        content = compressed(self._head + "".join(parts).encode(), path)
        write_atomically(path, lambda file: file.write(content))

    def _written(self, values: np.ndarray, texts: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """Record, column and text of each cell to fill, by record."""
        formats = self._formats({column for _, column, _ in texts})
        places = self.holes[:, :2].tolist()
        numbers = [(r, k, formats[k](v)) for (r, k), v in zip(places, np.asarray(values, float).tolist(), strict=True)]
        return sorted([*numbers, *((record, column, formats[column](text)) for record, column, text in texts)])

    def _with_holes(self, cells: Sequence[tuple[int, int, str]]) -> Iterator[tuple[list[str], list[tuple[int, str]]]]:
        """Parts of each record, and column and text of the cells to fill."""
        at = 0
        for record, fields in self._records():
            first = at
            while at < len(cells) and cells[at][0] == record:
                at += 1
            yield fields, [cell[1:] for cell in cells[first:at]]

    def _cells(self, cells: Sequence[tuple[int, int, str]]) -> Iterator[tuple[tuple[int, int], float | str]]:
        """Row and column in the sheet, from 1, and number or text of each hole."""
        for row, (_, filled) in enumerate(self._with_holes(cells), self._head.count(b"\n") + 1):
            for column, cell in filled:
                yield (row, column + 1), self._how.number(cell) if column in self.columns else _content(cell)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Number and parts of each record; -1 for blank lines and the header."""
        number = -self._skipped
        for parts in split_records(self._text, self._delimiter):
            whole = len(parts) == 2 * self._width
            yield (number if whole else -1), parts
            number += whole

    def _formats(self, worded: set[int]) -> dict[int, Callable[[Any], str]]:
        """How numbers, or texts in the columns `worded`, are written in each column."""
        decimals: dict[int, int] = {}  # of columns with numbers
        exponents: set[int] = set()
        quoted: set[int] = set()
        for record, fields in self._records():
            for k in self.columns if record >= 0 else ():
                content = _content(fields[2 * k])
                if not self._how.is_missing(content):
                    exponents |= {k} if "e" in content.lower() else set()
                    decimals[k] = max(decimals.get(k, 0), _decimals(content, self._how.decimal))
            for k in worded if record >= 0 else ():
                quoted |= {k} if fields[2 * k].lstrip().startswith('"') else set()

        def writer(k):
            def write(number: float) -> str:
                text = f"{number:.{_DIGITS}g}" if k in exponents or k not in decimals else f"{number:.{decimals[k]}f}"
                text = text.removeprefix("-") if not text.strip("-0.") else text  # no negative zeros
                return text.replace(".", self._how.decimal)

            return write

        def text_writer(k):
            def write(text: str) -> str:
                if len(self._delimiter) == 1:
                    needed = k in quoted or any(mark in text for mark in (self._delimiter, '"', "\n", "\r"))
                    return '"' + text.replace('"', '""') + '"' if needed else text
                if len(text.split(None if self._delimiter == BLANKS else self._delimiter)) > 1:
                    raise FileError(
                        f"cannot fill {shown(text)} into a column of {self._path}: it holds what separates columns there, which "
                        "have no quotes. Write that table with tabs or commas."
                    )
                return text

            return write

        return {k: writer(k) for k in self.columns} | {k: text_writer(k) for k in worded}


def split_records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Split text into records of fields and separators in turn, which joined give the text again.

    Fields are those that `DelimitedText` reads, with the quotes and blanks around them.
    """
    end = r"\r?\n|\Z"
    if delimiter == BLANKS:
        pattern = rf"([^\S\n]*\S*)([^\S\n]*(?:{end})|(?=\s))"
    elif len(delimiter) > 1:
        pattern = rf"((?:(?!{re.escape(delimiter)})[^\r\n])*)({re.escape(delimiter)}|{end})"
    else:
        pattern = rf'( *"(?:[^"]|"")*"|[^{re.escape(delimiter)}\r\n]*)({re.escape(delimiter)}|{end})'
    record: list[str] = []
    for match in re.finditer(pattern, text):
        record += match.groups()
        if match[2].endswith("\n") or (match.end() == len(text) and match[2] != delimiter):
            yield record
            record = []


def _content(raw: str) -> str:
    """A field without blanks and quotes around it."""
    return raw.strip().removeprefix('"').removesuffix('"').replace('""', '"').strip()


def _decimals(number: str, sign: str) -> int:
    return len(number.partition(sign)[2])
