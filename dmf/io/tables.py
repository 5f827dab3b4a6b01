"""Tables with missing cells in delimited text: one row of the matrix in each line, perhaps with names and other columns.

    name,a,b,colour
    a1,0.5,,red
    a2,NA,1.25,blue

What the user does not state is inferred from the content, and told: see `read_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dmf.errors import FileError
from dmf.io.cells import Cells, Column, Stated
from dmf.io.delimited import DelimitedText
from dmf.io.filling import Text
from dmf.io.messages import ignored, listed, shown
from dmf.io.reading import Matrix
from dmf.io.roles import notes_on_outliers, position, role_of
from dmf.io.sheets import Sheet
from dmf.io.words import Levels, Words

_ENTRY_NUMBERS = 4  # lines of ids and a value have at most this many columns of numbers: two ids, the value, a time
_HEADER_NUMBERS = 5  # a line of at least this many increasing whole numbers is a header
_FIRST_YEAR = 1000  # evenly spaced whole numbers from here on are names of columns
_EVEN_STEPS, _DISTINCT_IDS = 3, 8  # from which even steps, and different whole numbers, are no accident
_UNEVEN = 1e-3  # of the step between times on a regular grid, as they are rounded in a file
_ID_RATIO = 10  # ids this much larger than all else are no data
_DATA_BESIDE_TIMES = 1e7  # values of data stay below it where a column of seconds since 1970 stands beside them


class Sample(Protocol):
    """The first records of a file as text, perhaps with names of columns on top."""

    @property
    def first(self) -> list[str]:
        """The very first record."""

    @property
    def sample(self) -> list[list[str]]:
        """The first records."""

    @property
    def width(self) -> int:
        """Number of columns."""


def is_table(text: Sample, stated: Stated, how: Cells) -> bool:
    """Whether the first records are those of a table, rather than lines of row id, column id and value.

    They are if at least two columns hold numbers and, of these columns, one has a missing cell or there are more than four;
    unless headings name rows and columns, or at most one of them has missing cells and the first two columns look like ids:
    complete, whole numbers or text, ids of rows repeated, pairs mostly not.
    """
    sample = text.sample
    header = _has_header(sample, stated, how)[0]
    if header and {"row", "column"} <= {role_of(name) for name in text.first}:
        return False
    body = sample[1:] if header else sample
    columns = [Column(cells, how) for cells in zip(*body, strict=True)]
    roles = [role_of(name) for name in text.first] if header else [None] * text.width
    counts = bool(header) and not text.first[0] and columns[0].is_even  # lines numbered by pandas
    others = [
        c for k, (c, role) in enumerate(zip(columns, roles, strict=True)) if role != "time" and not (counts and k == 0)
    ]
    numeric = [column for column in others if column.is_numeric]
    if len(numeric) < 2 or (all(column.complete for column in numeric) and len(numeric) <= _ENTRY_NUMBERS):
        return False
    if sum(not column.complete for column in numeric) > 1:  # entries have missing cells in the column of values alone
        return True
    ids = all(c.complete and (c.is_whole or not c.is_numeric) for c in columns[:2])
    pairs = [(record[0], record[1]) for record in body]
    return not (ids and len({row for row, _ in pairs}) < len(pairs) <= 2 * len(set(pairs)))


def read_table(text: DelimitedText, stated: Stated, keep_text: bool = False) -> Matrix:
    """Read the rest of a delimited text as a table.

    - A column holds numbers if at least half of its cells that are not missing are meant as numbers; each of them must then
      be one. The other columns are no part of the matrix, but those of few different texts stand beside it, as `Words`.
    - The first line is a header if none of its cells above numbers is a number; if they are different whole numbers under a
      first cell that is empty, or is text above numbers; if they are 0, 1, 2, ...; if they are at least five whole numbers that
      increase, or evenly spaced ones from 1000 on, such as years.
    - The first column holds row names if it is text without repetition; or if it holds different whole numbers and has no
      heading or that of ids or times, counts evenly, is the only such column, or is far larger than all others; or if it is
      numbers at even distances. Text that repeats names no rows and is left out, as are different whole numbers in a later
      column whose heading is that of ids or times.
    - Rows and columns without any number are left out of the matrix: nothing is known of them.

    Where there are no names, rows and columns are called by their position in the file, from 0, row names not counted.

    Raises
    ------
    FileError
        If a line has too many or too few cells, a column of numbers holds something else, names repeat, there are fewer than
        two columns of numbers, or one of these looks like times among other numbers.
    """
    how = Cells(stated)
    lines = text.keep_lines() if keep_text else None
    has_header, about_header = _has_header(text.sample, stated, how)
    if has_header:
        text.skip_header()
        about_header += _skip_units(text, how)
    body = zip(*text.sample[text.n_skipped :], strict=True)
    sheet = Sheet(text.path, text.dialect(), text.first if has_header else None, text.width)
    sheet.levels = {k: Levels() for k, cells in enumerate(body) if not _are_numbers(cells, how)}
    index = index_column(sheet, stated) or 0
    for block in text.blocks():
        sheet.add_text(block, how, index)
    found = table_of(sheet, stated, how, [*text.comments(), *about_header])
    layout = None if lines is None else Text(text, lines, how, found.columns, found.holes, found.n_left_empty)
    return replace(found.matrix, text=layout)


@dataclass(frozen=True)
class Table:
    """What a sheet means: its matrix, and where this stands in the file.

    Attributes
    ----------
    matrix : Matrix
    columns : list of int
        Columns of the file that are those of the matrix.
    holes : int array, shape (n, 4)
        Of each missing cell of the matrix: record and column of the file, row and column of the matrix.
    n_left_empty : int
        Number of other cells that are missing: in rows and columns that hold no number.
    """

    matrix: Matrix
    columns: list[int]
    holes: np.ndarray
    n_left_empty: int


def index_column(sheet: Sheet, stated: Stated) -> int | None:
    """The column that is stated to hold row names, if any."""
    if stated.index_column in (None, "none"):
        return None
    return position(str(stated.index_column), sheet.header, sheet.width, sheet.path, "--index-column")


def table_of(sheet: Sheet, stated: Stated, how: Cells, notes: Sequence[str], written: Sequence[int] = ()) -> Table:
    """What the cells of a file mean: names of rows and columns, and the matrix; see `read_table`.

    Where nothing else is stated, the columns `written` as an index are no data, and a single one whose cells differ names the
    rows.
    """
    header, index = sheet.header, index_column(sheet, stated)
    left_out: list[int] = []  # columns of numbers that are no data
    numeric = sheet.numeric()
    worded = {k for k, levels in sheet.levels.items() if levels.are_few} - set(numeric)
    about_index: list[str] = []
    if stated.columns is not None:
        named = {position(name, header, sheet.width, sheet.path, "--columns") for name in stated.columns}
        stated_texts = {position(name, header, sheet.width, sheet.path, "texts") for name in stated.texts}
        worded &= stated_texts | {k for k in named if sheet.texts[k]}
        numeric = sorted(named - worded)
    elif stated.index_column is None and written:
        problem = _repetition(sheet) if len(written) == 1 else (0, "")
        index, left_out = (written[0], []) if problem is None else (None, list(written))
        if problem is not None:
            repeated = [sheet.called(k) for k in written]
            about_index = [f"the index ({', '.join(listed(repeated))}) is left out: it does not give each row one name"]
    elif stated.index_column is None:
        index, left_out, about_index = _guessed_index(sheet, numeric)
        left_out += (ids := _later_ids(sheet, [k for k in numeric if k > 0]))
        about_index += [
            f"the column {shown(sheet.called(k))} holds different whole numbers and is left out (--index-column {k + 1} takes it "
            "as row names, --index-column none as data)"
            for k in ids
        ]
    if index is not None and stated.index_column is not None and (problem := _repetition(sheet)) is not None:
        record, reason = problem
        raise sheet.error(
            record, f"{reason}. Give each row a name of its own, or name another column (--index-column)."
        )
    numeric = [k for k in numeric if k != index and k not in left_out]
    mixed = stated.layout == "table" and numeric and any(sheet.texts[k] for k in worded - {index})
    _check(sheet, numeric, how, 1 if mixed else 2)
    if stated.columns is None and stated.index_column is None:
        _check_no_times(sheet, numeric)
    if header is not None:
        _check_names(sheet, header, numeric)
    known = ~np.isnan(sheet.values[:, numeric])
    rows = np.flatnonzero(known.any(axis=1))
    matrix = sheet.values[np.ix_(rows, np.array(numeric))]
    row_ids = tuple(sheet.names[i] if index is not None else str(i) for i in rows.tolist())
    others = [k for k in range(sheet.width) if k not in numeric and k != index and k not in left_out]
    n_empty_columns = sum(sheet.numbers[k] == sheet.texts[k] == 0 for k in others)
    called = {k: header[k] if header else str(k - (index is not None and index < k)) for k in range(sheet.width)}
    words = tuple(
        Words(called[k], k, sum(j < k for j in numeric), tuple(levels.names), levels.codes()[rows], rows)
        for k, levels in sorted(sheet.levels.items())
        if k in worded and k in others and [*called.values()].count(called[k]) == 1
    )  # fmt: skip
    missing = np.argwhere(np.isnan(matrix))
    notes = [
        f"{sheet.dialect}; a table, {'no header' if header is None else 'column names in the first line'}, "
        + ("no row names" if index is None else f"row names in column {shown(header[index]) if header else index + 1}"),
        *notes,
        *about_index,
        *ignored(
            "columns without numbers",
            [header[k] if header else f"number {k + 1}" for k in others if k not in {column.place for column in words}],
        ),
    ]
    if left := len(known) - len(rows):
        notes.append(f"{left} rows without any number ignored")
    notes.append(f"{len(missing)} of {matrix.size} cells are missing")
    notes += notes_on_outliers(matrix.ravel())
    holes = np.column_stack([rows[missing[:, 0]], np.array(numeric)[missing[:, 1]], missing])
    n_left_empty = left * len(numeric) + len(known) * n_empty_columns
    col_ids = tuple(called[k] for k in numeric)
    return Table(Matrix(matrix, row_ids, col_ids, tuple(notes), words=words), numeric, holes, n_left_empty)


def _are_numbers(cells: Sequence[str], how: Cells) -> bool:
    """Whether there are cells that are not missing, and all of them are numbers."""
    try:
        return not np.isnan(how.values(cells)).all()
    except ValueError:
        return False


def _has_header(sample: Sequence[Sequence[str]], stated: Stated, how: Cells) -> tuple[bool, list[str]]:
    """Whether the first record holds column names, and a note where it may be otherwise."""
    first, below = sample[0], [Column(cells, how) for cells in zip(*sample[1:], strict=True)]
    if stated.header is not None:
        return stated.header, []
    above = [k for k, column in enumerate(below) if column.is_numeric]
    filled = [k for k in above if not how.is_missing(first[k])]
    texts = [k for k in filled if not how.is_meant(first[k])]
    if len(texts) == len(filled):
        return bool(texts), []
    inner = [first[k] for k in above if k > 0]
    if texts not in ([], [0]) or not all(cell.isascii() and cell.isdecimal() for cell in inner):
        return False, []
    names = [int(cell) for cell in inner]
    steps = np.diff(names)
    corner = 0 in texts or not first[0]
    if corner and len(set(names)) == len(names) > 1:
        return True, ["the whole numbers in the first line are taken as column names (--no-header takes them as data)"]
    increasing = len(names) > 1 and bool((steps > 0).all())
    even = increasing and bool((steps == steps[0]).all())
    counted = 0 in above and [first[0], *names] == ["0", *range(1, len(names) + 1)] and len(names) > 1
    rising = increasing and 0 not in above
    if counted or (even and names[0] >= _FIRST_YEAR) or (rising and len(names) >= _HEADER_NUMBERS):
        return True, ["the whole numbers in the first line are taken as column names (--no-header takes them as data)"]
    if rising:
        return False, ["the whole numbers in the first line are taken as data (--header takes them as column names)"]
    return False, []


def _skip_units(text: DelimitedText, how: Cells) -> list[str]:
    """Leave out the line below the header if it holds words alone, above numbers in several columns; a note on that."""
    below = [(cells[1], Column(cells[2:], how)) for cells in zip(*text.sample, strict=True) if len(cells) > 3]
    units = [cell for cell, column in below if column.is_numeric and column.filled]
    if len(units) < 2 or any(how.is_missing(cell) or how.is_meant(cell) for cell in units):
        return []
    text.skip_units()
    return [f"the line below the header ({', '.join(listed(units))}) is taken as units, and left out"]


def _guessed_index(sheet: Sheet, numeric: Sequence[int]) -> tuple[int | None, list[int], list[str]]:
    """The column of row names, the first one if any; the columns of numbers that are no data; and what is assumed of these."""
    heading = None if sheet.header is None else sheet.header[0].strip()
    called = "the first column" if not heading else f"the column {shown(heading)}"
    problem = _repetition(sheet)
    where = "" if problem is None else sheet.place(problem[0])
    if 0 not in numeric:
        if not any(sheet.names):
            return None, [], []
        return (0, [], []) if problem is None else (None, [], [f"{called} names no rows ({where}: {problem[1]})"])
    values = sheet.values
    column = values[:, 0]
    whole = bool(np.isfinite(column).all()) and bool((column % 1 == 0).all())
    role = "name" if heading == "" else role_of(heading or "-")
    if problem is not None and role == "time":
        note = f"{called} is left out: it names no rows ({where}: {problem[1]}; --index-column none takes it as data)"
        return None, [0], [note]
    if problem is not None and role in ("row", "name"):
        raise FileError(
            f"cannot read {sheet.path}, {where}: {called} seems to hold row names, but {problem[1]}. Give each row a "
            "name of its own, or say what it is: --index-column none takes it as data, --index-column NAME another as row names."
        )
    steps = np.diff(column)
    if whole and problem is not None and (steps >= 0).all() and len(np.unique(column)) >= _DISTINCT_IDS:
        return (
            None,
            [],
            [f"{called} is taken as data, though it only rises (--format table --columns names those that are)"],
        )
    even = len(steps) >= _EVEN_STEPS and steps[0] > 0 and bool((steps == steps[0]).all())
    regular = len(steps) >= _DISTINCT_IDS and steps[0] > 0 and bool((abs(steps - steps[0]) < _UNEVEN * steps[0]).all())
    if problem is not None or not (whole or regular or role == "time"):
        return None, [], []
    rest = [k for k in numeric if k > 0]
    unique = len(column) >= _DISTINCT_IDS and not any(_is_ids(values[:, k]) for k in rest)
    apart = column.min() > _ID_RATIO * np.nanmax(np.abs(values[:, rest]), initial=0)
    if role in ("row", "name", "time") or even or regular or unique or apart:
        what = "different whole numbers" if whole else "numbers at even distances" if regular else "different numbers"
        return 0, [], [f"{called} holds {what} and is taken as row names (--index-column none takes it as data)"]
    return None, [], [f"{called} is taken as data (--index-column 1 takes it as row names)"]


def _later_ids(sheet: Sheet, numeric: Sequence[int]) -> list[int]:
    """Columns after the first whose headings name rows or times, and whose cells are different whole numbers."""
    if sheet.header is None:
        return []
    roles = {k: role_of(sheet.header[k]) for k in numeric}
    return [k for k, role in roles.items() if role in ("row", "name", "time") and _is_ids(sheet.values[:, k])]


def _is_ids(column: np.ndarray) -> bool:
    """Whether a column is complete and holds different whole numbers."""
    return bool(np.isfinite(column).all() and (column % 1 == 0).all()) and len(np.unique(column)) == len(column)


def _repetition(sheet: Sheet) -> tuple[int, str] | None:
    """Record of the first row name that is empty or was there before, and what is wrong with it."""
    seen: dict[str, int] = {}
    for record, name in enumerate(sheet.names):
        if not name:
            return record, "the row name is empty"
        if name in seen:
            return record, f"the row name {shown(name)} was on {sheet.place(seen[name])} already"
        seen[name] = record
    return None


def _check(sheet: Sheet, numeric: Sequence[int], how: Cells, least: int) -> None:
    """Raise unless there are columns of numbers, at least so many, all of which are finite."""
    if len(numeric) < least:
        raise FileError(
            f"cannot read {sheet.path} as a table: {len(numeric)} of {sheet.width} columns ({sheet.dialect}) hold numbers, but "
            f"at least {least} are needed (1 with --format table and a column of categories). If its lines are row id, column id "
            "and value, read it as entries."
        )
    wrong = [(*sheet.wrong[k], k) for k in numeric if k in sheet.wrong]
    if wrong:
        record, cell, k = min(wrong)
        column = f"column {k + 1}" if sheet.header is None else f"column {k + 1} ({shown(sheet.header[k])})"
        finite = "but cells are finite numbers. Leave the cell empty if it is missing."
        raise sheet.error(record, f"{column} is {shown(cell)}, {finite if how.is_number(cell) else how.hint(cell)}")


def _check_no_times(sheet: Sheet, numeric: Sequence[int]) -> None:
    """Raise if a column of seconds since 1970 would be taken for one of the matrix."""
    values = sheet.values
    largest = [float(np.nanmax(np.abs(values[:, k]), initial=0)) for k in numeric]
    for k, size in zip(numeric, largest, strict=True):
        column = values[:, k][~np.isnan(values[:, k])]
        if column.min() >= 1e8 and (column % 1 == 0).all() and min(largest) < _DATA_BESIDE_TIMES and size < 42e11:
            rest = [sheet.called(j) for j in numeric if j != k]
            raise FileError(
                f"cannot read {sheet.path}: column {k + 1} ({shown(sheet.called(k))}) holds whole numbers like seconds since "
                f"1970, which would spoil the others as data. Take it as the row names (--index-column {k + 1}), say that it is "
                "data (--index-column none), or name the columns of the matrix (--format table --columns "
                f"{','.join(listed(rest))})."
            )


def _check_names(sheet: Sheet, header: Sequence[str], numeric: Sequence[int]) -> None:
    seen: dict[str, int] = {}
    for k in numeric:
        name = header[k]
        if not name or name in seen:
            twice = f"columns {seen.get(name, k) + 1} and {k + 1} are both called {shown(name)}"
            problem = twice if name else f"column {k + 1} has no name"
            raise FileError(f"cannot read {sheet.path}: {problem}. Give each column of numbers a name of its own.")
        seen[name] = k
