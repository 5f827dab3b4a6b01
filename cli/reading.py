"""Options that say of a file with rows and columns what it does not say itself."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from typing import Any

import click


class _Listed(click.ParamType):
    """Texts separated by commas, as a line of csv."""

    name = "A,B,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """The texts without blanks around them."""
        return value if isinstance(value, tuple) else tuple(text.strip() for text in next(csv.reader([value]), []))


_READING = {
    "layout": click.option(
        "--format", "layout", type=click.Choice(["auto", "entries", "table", "matrix"]), default="auto", show_default=True,
        help="What FILE holds: lines of row, column, value; a table whose columns have units of their own; or a matrix of one.",
    ),
    "columns": click.option(
        "--columns", type=_Listed(), metavar="ROW,COLUMN,VALUE",
        help="Columns of entries, by name or number from 1. With --format table: the columns of the matrix.",
    ),
    "value": click.option("--value", metavar="NAME|N", help="Column of the values of entries."),
    "time": click.option(
        "--time", metavar="NAME|N",
        help="Column of times of entries, numbers or dates: rows and columns may drift. None is read unless given.",
    ),
    "index_column": click.option(
        "--index-column", metavar="NAME|N|none", help="Column of a table with the row names; none: there is none."
    ),
    "header": click.option("--header/--no-header", default=None, help="Whether the first line holds column names."),
    "missing": click.option(
        "--missing", type=_Listed(), default=(), metavar="-999,?,...", help="More marks of missing cells."
    ),
    "decimal": click.option(
        "--decimal", type=click.Choice([".", ","]), default=".", show_default=True, help="Decimal sign."
    ),
    "thousands": click.option("--thousands", metavar="SIGN", help="What groups the digits of numbers."),
    "skip": click.option(
        "--skip", type=click.IntRange(min=0), default=0, help="Lines at the top to leave out, such as a title."
    ),
    "sheet": click.option("--sheet", help="Sheet of an Excel workbook; the first unless given."),
    "query": click.option(
        "--query", metavar="SQL", help="What to read from a database of DuckDB or SQLite; its only table unless given."
    ),
}  # fmt: skip


def _reading(*names: str) -> Callable[..., Any]:
    """Adds options that say what a file does not say itself; the command gets them as the keyword argument `stated`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapper(*args: Any, **options: Any) -> Any:
            stated = {name: options.pop(name) for name in names}
            return command(*args, stated=stated, **options)

        for name in reversed(names):
            wrapper = _READING[name](wrapper)
        return wrapper

    return decorate


timed_options = _reading(*_READING)
reading_options = _reading(*(name for name in _READING if name != "time"))
table_options = _reading("index_column", "header", "missing", "decimal", "thousands", "skip", "sheet")
