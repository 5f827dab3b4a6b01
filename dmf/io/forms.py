"""Matrices in the forms that Python has for them, and the way back: arrays, data frames, labelled arrays."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import numpy as np

from dmf.errors import ArgumentError, DTypeError, ObservationError, ShapeError
from dmf.io.arrow import as_cells, pandas_index, with_cells
from dmf.io.ids import Numbering, Stack
from dmf.io.lines import entries_and_holes
from dmf.io.messages import listed
from dmf.io.reading import Entries
from dmf.io.roles import role_of

_INTEGERS = ("int", "uint")


@dataclass(frozen=True)
class Form:
    """How a matrix came: its names, and the way back.

    Attributes
    ----------
    row_ids, col_ids : tuple of str, or None
        Names of rows and columns; None where there are none, or they repeat.
    restored : callable, or None
        Called with the whole matrix, an array, returns it in the form that came in, what was known as it was. None: it stays an
        array.
    """

    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None
    restored: Callable[[np.ndarray], Any] | None = None


def read_form(data: Any) -> tuple[Any, Form | None]:
    """Values, names and the way back of a matrix in any form.

    Parameters
    ----------
    data : array, nested lists, pandas or polars DataFrame, pyarrow Table, xarray DataArray, or anything else
        None and what the libraries call missing are missing. Columns of dates and times are left aside, and come back as they
        are. Anything else is handed on.

    Returns
    -------
    values : array, or what was passed
        NaN marks a missing entry.
    form : Form, or None
        None: there is nothing but the values.

    Raises
    ------
    DTypeError
        If there is text where numbers are needed; the message names row and column.
    ShapeError
        If the data have other than two dimensions, or are a long list of entries.
    """
    reader = _READERS.get((type(data).__module__.partition(".")[0], type(data).__name__))
    if reader is not None:
        return reader(data)
    if isinstance(data, np.matrix):  # whose rows are matrices again
        return np.asarray(data), None
    if isinstance(data, (list, tuple)) and _is_rectangular(data) and np.asarray(data).dtype.kind in "OU":
        data = np.array(data, object)
    if isinstance(data, np.ndarray) and data.dtype == object and data.ndim == 2 and data.size:
        return np.column_stack([_of_objects(data[:, k], f"column {k}") for k in range(data.shape[1])]), None
    return data, None


def _is_rectangular(data: Sequence[Any]) -> bool:
    return all(isinstance(row, (list, tuple)) for row in data) and len({len(row) for row in data}) == 1


def read_long(frame: Any, row: Any, column: Any, value: Any, time: Any = None) -> Entries:
    """Entries of a long data frame: one for each row that has a value; see `dmf.SampledEntries.from_frame`."""
    wanted = {"row": row, "column": column, "value": value} | ({} if time is None else {"time": time})
    names = list(frame) if isinstance(frame, dict) else getattr(frame, "column_names", getattr(frame, "columns", None))
    if names is None:
        raise ArgumentError(
            f"frame is a {type(frame).__name__}, but it has named columns: a data frame, a pyarrow Table or a dict of arrays.",
            argument="frame",
            value=type(frame).__name__,
        )
    for argument, name in wanted.items():
        if list(names).count(name) != 1:
            raise ArgumentError(
                f"{argument}={name!r}, but the columns are {', '.join(listed(list(map(str, names))))}. Name one of them.",
                argument=argument,
                value=name,
                limit=tuple(names),
            )
    rows, cols = Numbering(), Numbering()
    _number_ids(rows, frame[row], f"row ({row!r})")
    _number_ids(cols, frame[column], f"column ({column!r})")
    values = _numbers(frame[value], f"column {value!r}")
    times = None if time is None else times_of(frame[time], f"column {time!r}")
    if not len(rows) == len(cols) == len(values) == len(values if times is None else times):
        raise ShapeError(f"{', '.join(wanted)} have different lengths, but an entry has one of each.", argument="frame")
    stack = Stack(values.dtype)
    stack.add(values)
    return entries_and_holes(rows, cols, stack, 0, times)[0]


def times_of(column: Any, where: str) -> np.ndarray:
    """Numbers of a column of any library, or seconds since 1970 of its dates, in float64; NaN for missing ones."""
    cells = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    if cells.dtype == object and is_time(getattr(column, "dtype", "")):  # of pandas, with a time zone
        cells = column.to_numpy("datetime64[us]")
    if cells.dtype.kind == "M":
        return np.where(np.isnat(cells), np.nan, cells.astype("datetime64[us]").astype(np.int64) / 1e6)
    return _numbers(column, where).astype(np.float64)


def _number_ids(ids: Numbering, column: Any, where: str) -> None:
    array = column if isinstance(column, np.ndarray) else None
    if array is None and str(getattr(column, "dtype", "")).lower().startswith(_INTEGERS) and not _count_missing(column):
        array = np.asarray(column.to_numpy())
    if array is not None and array.dtype.kind in "iu" and array.ndim == 1:
        ids.add_integers(array.astype(np.int64))
        return
    cells = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    gone = next((k for k, cell in enumerate(cells) if _is_missing(cell)), None)
    texts = [] if gone is not None else list(map(text_of, cells))
    if gone is not None or not ids.add(texts):
        at = [text.strip() for text in texts].index("") if gone is None else gone
        raise ObservationError(
            f"{where} has no id in row {at} (from 0), but every entry has one. Give it, or leave the row out.",
            argument="frame",
            value=at,
        )


def _count_missing(column: Any) -> int:
    return int(column.null_count() if hasattr(column, "null_count") else column.isna().sum())


def text_of(name: Any) -> str:
    """A name as text: that of a whole number without point."""
    if isinstance(name, bytes):
        return name.decode(errors="replace")
    return str(int(name) if isinstance(name, (float, np.floating)) and name.is_integer() else name)


def _is_missing(cell: Any) -> bool:
    if cell is None:
        return True
    try:
        return bool(cell != cell)
    except TypeError:  # pandas.NA
        return True


def _of_objects(cells: Any, where: str) -> np.ndarray:
    """Numbers of objects, NaN for missing ones."""
    values = np.full(len(cells), np.nan)
    for k, cell in enumerate(cells):
        if _is_missing(cell):
            continue
        if not isinstance(cell, (numbers.Real, Decimal)):
            raise DTypeError(
                f"{where} holds {cell!r} in row {k} (from 0), but numbers are needed. Leave the column out; for columns of text "
                "beside numbers there is dmf.complete_table.",
                argument="data",
                value=type(cell).__name__,
                limit="numbers",
            )
        values[k] = float(cell)
    return values


def _numbers(column: Any, where: str) -> np.ndarray:
    """Numbers of a column of any library in float32 or float64, NaN for missing ones."""
    if hasattr(column, "to_pylist"):  # of pyarrow
        plain = str(column.type).startswith((*_INTEGERS, "float", "double", "bool"))
        return column.cast("float64", safe=False).to_numpy() if plain else _of_objects(column.to_pylist(), where)
    dtype = getattr(column, "dtype", None)
    name = str(dtype).lower()
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
        wanted = np.float32 if dtype in (np.float16, np.float32) else np.float64
        return np.asarray(column).astype(wanted, copy=False)
    if name.startswith((*_INTEGERS, "float", "double", "bool")):
        if hasattr(column, "fill_null"):  # of polars
            return column.cast(import_module("polars").Float64).to_numpy()
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return _of_objects(list(column), where)


def is_time(dtype: Any) -> bool:
    """Whether a dtype of any library is of dates, times or differences of these."""
    return str(dtype).lower().startswith(("date", "time", "duration", "period"))


def _matrix(
    names: Sequence[Any], dtypes: Sequence[Any], column: Callable[[int], Any], index: Sequence[str] = ()
) -> tuple[list[int], np.ndarray]:
    """Columns that are neither times nor an index, and their numbers side by side."""
    kept = [k for k, dtype in enumerate(dtypes) if not is_time(dtype) and names[k] not in index]
    if not kept:
        raise ShapeError(
            "the data have no column of numbers, but a matrix has some.", argument="data", value=len(names)
        )
    _check_wide(names)
    parts = [_numbers(column(k), f"column {names[k]!r}") for k in kept]
    return kept, np.column_stack(parts)


def _check_wide(names: Sequence[Any]) -> None:
    """Raise if the columns are those of a long list of entries."""
    first: dict[str | None, Any] = {}  # name of each role
    for name in names:
        first.setdefault(role_of(name) if isinstance(name, str) else None, name)
    row, column = first.get("row", first.get("time")), first.get("column")
    value = first.get("value", first.get(None) if len(names) <= 4 else None)
    if row is None or column is None or value is None:
        return
    raise ShapeError(
        f"the columns {row!r}, {column!r} and {value!r} look like those of a long list of entries, one in each row, not like "
        f"columns of a matrix. Pass dmf.SampledEntries.from_frame(data, row={row!r}, column={column!r}, value={value!r}); or "
        "the values as an array, if they are a matrix.",
        argument="data",
        value=tuple(map(str, names)),
    )


def _names(labels: Any) -> tuple[str, ...] | None:
    """Labels as names; None if they are positions from 0, or repeat."""
    names = tuple(map(text_of, labels))
    if len(set(names)) < len(names) or "" in names or names == tuple(map(str, range(len(names)))):
        return None
    return names


_Completed = Iterator[tuple[int, np.ndarray, np.ndarray]]


def _completed(kept: Sequence[int], values: np.ndarray, filled: np.ndarray, dtypes: Sequence[Any]) -> _Completed:
    """Of each column with missing cells: its number, where these are, and what fills them; whole numbers are int64."""
    for place, k in enumerate(kept):
        gone = np.isnan(values[:, place])
        if gone.any():
            cells = filled[gone, place]
            yield k, gone, as_cells(cells, dtypes[k])


def _of_pandas(frame: Any) -> tuple[np.ndarray, Form]:
    kept, values = _matrix(list(frame.columns), list(frame.dtypes), lambda k: frame.iloc[:, k])
    ids = _names(frame.index), _names([frame.columns[k] for k in kept])
    return values, Form(*ids, partial(_to_pandas, frame, kept, values))


def _to_pandas(frame: Any, kept: list[int], values: np.ndarray, filled: np.ndarray) -> Any:
    result = frame.copy()
    for k, gone, cells in _completed(kept, values, filled, list(frame.dtypes)):
        result.isetitem(k, with_series_cells(frame.iloc[:, k], gone, cells))
    return result


def with_series_cells(series: Any, gone: np.ndarray, cells: Any) -> Any:
    """A pandas Series with `cells` where the mask says, in its dtype."""
    dtype = series.dtype
    filled = series.sparse.to_dense() if is_sparse_dtype(dtype) else series.copy()
    floats = isinstance(filled.dtype, np.dtype) and filled.dtype.kind == "f"
    filled.iloc[np.flatnonzero(gone)] = np.asarray(cells, filled.dtype) if floats else cells
    return filled.astype(dtype) if is_sparse_dtype(dtype) else filled


def is_sparse_dtype(dtype: Any) -> bool:
    """Whether a dtype is the one of pandas that stores only some cells."""
    return type(dtype).__name__ == "SparseDtype"


def _of_polars(frame: Any) -> tuple[np.ndarray, Form]:
    kept, values = _matrix(frame.columns, frame.dtypes, lambda k: frame[:, k])
    return values, Form(None, _names([frame.columns[k] for k in kept]), partial(_to_polars, frame, kept, values))


def _to_polars(frame: Any, kept: list[int], values: np.ndarray, filled: np.ndarray) -> Any:
    completed = _completed(kept, values, filled, frame.dtypes)
    return frame.with_columns(with_polars_cells(frame[:, k], gone, cells) for k, gone, cells in completed)


def with_polars_cells(series: Any, gone: np.ndarray, cells: np.ndarray) -> Any:
    """A polars Series with the numbers `cells` where the mask says, in its dtype."""
    given = import_module("polars").Series(as_cells(cells, series.dtype)).cast(series.dtype)
    return series.clone().scatter(np.flatnonzero(gone), given)


def _of_arrow(table: Any) -> tuple[np.ndarray, Form]:
    index = pandas_index(table.schema)
    kept, values = _matrix(table.column_names, table.schema.types, table.column, index)
    rows = _names(table.column(index[0]).to_pylist()) if len(index) == 1 else None
    return values, Form(rows, _names([table.column_names[k] for k in kept]), partial(_to_arrow, table, kept, values))


def _to_arrow(table: Any, kept: list[int], values: np.ndarray, filled: np.ndarray) -> Any:
    result = table
    for k, gone, cells in _completed(kept, values, filled, table.schema.types):
        result = with_cells(result, k, gone, cells)
    return result


def _of_xarray(data: Any) -> tuple[Any, Form]:
    if data.ndim != 2:
        raise ShapeError(
            f"the DataArray has the dimensions {', '.join(map(str, data.dims))}, but a matrix has 2. Stack some: "
            "data.stack(row=(...)).",
            argument="data",
            value=data.shape,
            limit=2,
        )
    rows, cols = (_names(data.indexes[name]) if name in data.indexes else None for name in data.dims)
    return data.to_numpy(), Form(rows, cols, partial(_to_xarray, data))


def _to_xarray(data: Any, filled: np.ndarray) -> Any:
    return data.copy(data=filled)


def _refused(data: Any) -> NoReturn:
    raise ShapeError(
        f"the data are a {type(data).__name__} of {type(data).__module__.partition('.')[0]}, but a matrix has rows and columns. "
        "Pass a DataFrame (of a LazyFrame: collect(); of a Dataset: one of its arrays; of the name of a file: what "
        "dmf.io.read_entries reads).",
        argument="data",
        value=type(data).__name__,
    )


_READERS: dict[tuple[str, str], Callable[[Any], tuple[Any, Form]]] = {
    ("pandas", "DataFrame"): _of_pandas,
    ("polars", "DataFrame"): _of_polars,
    ("pyarrow", "Table"): _of_arrow,
    ("xarray", "DataArray"): _of_xarray,
    ("pandas", "Series"): _refused,
    ("polars", "Series"): _refused,
    ("polars", "LazyFrame"): _refused,
    ("xarray", "Dataset"): _refused,
    ("builtins", "dict"): _refused,
    ("builtins", "str"): _refused,
    ("pathlib", "PosixPath"): _refused,
    ("pathlib", "WindowsPath"): _refused,
}
