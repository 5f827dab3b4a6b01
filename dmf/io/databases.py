"""What a query of a database gives: DuckDB, and SQLite, which comes with Python. Entries, or a table."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from dmf.errors import FileError
from dmf.io.arrow import BATCH, SAMPLE, Columns, errors_of, from_columns, sample_of
from dmf.io.cells import Stated
from dmf.io.messages import Progress, listed, package, shown
from dmf.io.reading import Entries, Matrix

_DUCKDB_TABLES = "select table_name from duckdb_tables()"
_SQLITE_TABLES = "select name from sqlite_master where type = 'table' and name not glob 'sqlite_*'"


def load_duckdb(path: Path, stated: Stated, keep: bool, progress: Progress) -> Entries | Matrix:
    """Read what a query of a DuckDB database gives, or its only table."""
    duckdb, pyarrow = package("duckdb", path, "duckdb"), package("pyarrow", path, "duckdb")
    try:
        with errors_of(path, pyarrow), duckdb.connect(str(path), read_only=True) as database:
            query = stated.query or _only_table(path, database.execute(_DUCKDB_TABLES).fetchall())
            result = database.sql(query)
            if result is None:
                raise _no_select(path, query)
            reader = result.to_arrow_reader(BATCH)
            columns = _columns(path, "DuckDB", reader.schema.names, reader, keep, progress, pyarrow)
            return from_columns(columns, stated, keep, pyarrow)
    except duckdb.Error as error:
        raise FileError(f"cannot read {path}: {error}") from error


def load_sqlite(path: Path, stated: Stated, keep: bool, progress: Progress) -> Entries | Matrix:
    """Read what a query of an SQLite database gives, or its only table."""
    pyarrow = package("pyarrow", path, "parquet")
    try:
        with (
            errors_of(path, pyarrow),
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database,
        ):
            query = stated.query or _only_table(path, database.execute(_SQLITE_TABLES).fetchall())
            found = database.execute(query)
            if found.description is None:
                raise _no_select(path, query)
            names = [name for name, *_ in found.description]
            columns = _columns(path, "SQLite", names, _batches(found, names, pyarrow), keep, progress, pyarrow)
            return from_columns(columns, stated, keep, pyarrow)
    except sqlite3.Error as error:
        raise FileError(f"cannot read {path}: {error}") from error


def _only_table(path: Path, tables: Sequence[tuple[str]]) -> str:
    names = [name for (name,) in tables]
    if len(names) != 1:
        raise FileError(
            f"cannot read {path}: {len(names)} tables ({', '.join(listed(names))}). Say what to read: --query 'select row, "
            "column, value from ...'."
        )
    return 'select * from "{}"'.format(names[0].replace('"', '""'))


def _no_select(path: Path, query: str) -> FileError:
    return FileError(f"cannot read {path}: the query {shown(query)} gives no rows. Pass a select.")


def _batches(found: sqlite3.Cursor, names: list[str], pyarrow: Any) -> Iterator[Any]:
    while records := found.fetchmany(BATCH):
        yield pyarrow.RecordBatch.from_arrays([pyarrow.array(cells) for cells in zip(*records, strict=True)], names)


def _columns(
    path: Path, dialect: str, names: list[str], batches: Iterable[Any], keep: bool, progress: Progress, pyarrow: Any
) -> Columns:
    """What a query gives, as it comes: it is not run twice, as it may give something else then."""
    batches = iter(batches)
    first = next(batches, None)
    if first is None or not len(first):
        raise FileError(f"cannot read {path}: the query gives no rows. Give at least one entry.")
    parts: Any = itertools.chain([first], batches)
    if keep:
        parts = list(parts)

    def scan(_: list[str]) -> Iterator[Any]:
        read = 0
        for batch in parts:
            yield batch
            read += len(batch)
            progress(read, 0.0)  # how many more will come is not known

    def whole() -> Any:
        tables = [pyarrow.Table.from_batches([batch]) for batch in parts]
        return pyarrow.concat_tables(tables, promote_options="permissive")  # SQLite gives each cell its own type

    return Columns(path, dialect, names, sample_of(names, first.slice(0, SAMPLE)), scan, whole)
