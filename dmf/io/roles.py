"""Which column of a file is what: as the user states it, or else by headings and content, and told in either case.

A guess that would spoil every number, such as times taken for values, is an error that names the option to state it with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dmf.errors import FileError
from dmf.io.cells import Column, Stated
from dmf.io.messages import listed, shown

# The one list of headings: what they name, whatever follows ("user_id", "movieIds", "rating:float").
_WORDS = {
    "row": "row user person member customer client reader viewer patient",
    "column": "col column item movie film product book song track artist drug sensor variable",
    "value": "value rating score stars prediction",
    "time": "timestamp time date datetime epoch year month day hour",
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words.split()}
_ENDING = re.compile(r"[ _.-]?(id|ids|name|key|code|index|no|nr|number)$")
_NAMES = ("id", "name", "key", "index")  # alone: names of rows or columns

_MIN_LINES = 20  # repetitions among fewer say nothing


def role_of(heading: str) -> str | None:
    """What a heading names: "row", "column", "value", "time", "name" (of either), or None."""
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", heading.strip()).lower()
    word = re.sub(r":\w+$", "", word)  # a type, as RecBole writes it
    if word in _NAMES:
        return "name"
    if re.fullmatch("[ui]id", word):
        return "row" if word == "uid" else "column"
    stem = _ENDING.sub("", word)
    return _ROLES.get(stem) or _ROLES.get(stem.removesuffix("s")) or _ROLES.get(stem.removesuffix("id"))


def position(reference: str, names: Sequence[str] | None, width: int, where: object, option: str) -> int:
    """Position of the column that a user names, by its name or its number from 1."""
    if names is not None and reference in names:
        if list(names).count(reference) > 1:
            raise FileError(
                f"cannot read {where}: two columns are called {shown(reference)}. Name them by number ({option})."
            )
        return list(names).index(reference)
    if reference.isascii() and reference.isdecimal() and 1 <= int(reference) <= width:
        return int(reference) - 1
    there = (
        f"its columns are {', '.join(listed(names))}" if names is not None else f"it has no header and {width} columns"
    )
    raise FileError(
        f"cannot read {where}: no column {shown(reference)} ({option}), but {there}. Pass a name or a number from 1 to {width}."
    )


def entry_columns(
    names: Sequence[str] | None, columns: Sequence[Column], stated: Stated, where: object
) -> tuple[int, ...]:
    """Positions of the columns of row ids, column ids and values, and of times where one is stated.

    What is stated holds; then headings that name users, items, values and times; then the order of the columns, where a first
    column without a heading that counts the lines, as pandas writes it, and times (headings that name them, or whole numbers
    like seconds since 1970) are left out.
    """
    width = len(columns)
    found: dict[str, int] = {}
    given = [*(stated.columns or ())]
    for role, reference in zip(("row", "column", "value"), given, strict=False):
        found[role] = position(reference, names, width, where, "--columns")
    for role, name in (("value", stated.value), ("time", stated.time)):
        if name is not None:
            found[role] = position(name, names, width, where, f"--{role}")
    if len(set(found.values())) < len(found):
        raise FileError(
            f"cannot read {where}: one column is named twice. Rows, columns, values and times have one each (--columns, --time)."
        )
    roles = [role_of(name) for name in names] if names is not None else [None] * width
    for role in ("row", "column", "value"):
        named = [k for k in range(width) if roles[k] == role and k not in found.values()]
        if role not in found and len(named) == 1 and (role != "value" or columns[named[0]].is_numeric):
            found[role] = named[0]
    needed = 3 - len(found) + ("time" in found)
    left = [k for k in range(width) if k not in found.values() and roles[k] != "time"]
    times = [k for k in left if columns[k].is_times and 2 * len(set(columns[k].filled)) > len(columns[k].filled)]
    if times and len(left) - len(times) >= needed:
        left = [k for k in left if k not in times]
    unnamed = (names is None and len(columns[0].filled) >= _MIN_LINES) or (names is not None and not names[0].strip())
    if unnamed and len(left) > needed and 0 in left and columns[0].is_even:
        left.remove(0)
    if len(left) < needed:
        left = [k for k in range(width) if k not in found.values()]
    if len(left) < needed:
        raise FileError(f"cannot read {where}: {width} columns, but row ids, column ids and values need one each.")
    if "value" not in found:
        later = left[needed - 1 :]
        found["value"] = next((k for k in later if columns[k].is_numeric), later[0])
        left.remove(found["value"])
    for role in ("row", "column"):
        if role not in found:
            found[role] = left.pop(0)
    row, col, value = found["row"], found["column"], found["value"]
    free = [k for k in range(width) if k not in found.values() and roles[k] is None and not columns[k].is_distinct]
    if (
        not given
        and free
        and roles[row] is None
        and columns[row].is_distinct
        and len(columns[row].filled) >= _MIN_LINES
    ):
        raise _told(
            where, f"no two lines have the same id in column {row + 1}, which would be row ids", row, col, value
        )
    if not given and (names is None or roles[value] != "value") and stated.value is None:
        _check_guess(columns, row, col, value, where)
    return row, col, value, *([found["time"]] if "time" in found else [])


def _check_guess(columns: Sequence[Column], row: int, col: int, value: int, where: object) -> None:
    """Raise if the columns taken by their order look like others than row ids, column ids and values."""
    column, problem = columns[value], ""
    if column.is_times:
        problem = f"column {value + 1} would be the values, but holds whole numbers like seconds since 1970"
    for k, ids in ((row, columns[row]), (col, columns[col])):
        fractions = ids.is_numeric and not ids.is_whole and len(ids.numbers) == len(ids.filled)
        if fractions and (column.as_integers or len(ids.filled) >= _MIN_LINES):
            problem = f"column {k + 1} would be ids, but holds fractions"
    one, two, three = (columns[k].filled for k in (row, col, value))
    same_length = len(one) == len(two) == len(three) >= _MIN_LINES
    if not problem and same_length and column.as_integers:
        pairs, swapped = len(set(zip(one, two, strict=True))), ((one, three), (two, three))
        never = any(len(set(zip(*ids, strict=True))) == len(one) for ids in swapped)
        if 2 * pairs < len(one) and never:
            problem = f"most pairs of columns {row + 1} and {col + 1} repeat, those with column {value + 1} never"
    if problem:
        raise _told(where, problem, row, col, value)


def _told(where: object, problem: str, row: int, col: int, value: int) -> FileError:
    return FileError(
        f"cannot read {where} by the order of its columns: {problem}. Say which columns hold row ids, column ids and values: "
        f"--columns {row + 1},{col + 1},{value + 1} if it is right as it is, or others; or --format table, if it is one."
    )


def notes_on_outliers(values: np.ndarray) -> list[str]:
    """Note on values such as -999 that repeat far outside all others, and may mark missing cells."""
    finite = np.isfinite(values)
    notes, rest = [], values if finite.all() else values[finite]
    for sign in (1, -1, 1, -1):
        if len(rest) < 4:
            break
        ends = float(rest.min()), float(rest.max())
        outer, far = ends[::sign]
        probe = rest[:: max(len(rest) // 1_000, 1)]  # a few say in most cases that the others are not that far away
        if ((probe != outer) & (sign * probe < sign * (outer + 0.75 * (far - outer)))).any():
            continue
        others = rest[rest != outer]
        count = len(rest) - len(others)
        if count < 2 or len(others) < 2:
            continue
        first, last = float(others.min()), float(others.max())
        gap = first - outer if sign == 1 else outer - last
        if last > first and gap / 3 > last - first:
            notes.append(
                f"the value {outer:.10g} occurs {count:,} times, far outside the others: if it marks missing entries, pass "
                f"--missing {outer:.10g}"
            )
            rest = others
    return notes
