"""Tables in and out: arrays, data frames of pandas and polars, tables of pyarrow, all with their own dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from dmf.errors import DTypeError, ShapeError
from dmf.io.arrow import as_cells, pandas_index, with_cells, with_objects
from dmf.io.forms import is_sparse_dtype, is_time, with_polars_cells, with_series_cells
from dmf.tables.kinds import Column, codes_of, is_missing, read_columns


@dataclass(frozen=True)
class Frame:
    """A table that was passed: what it came as, and its cells as numbers or codes.

    Attributes
    ----------
    source : array or data frame
        As passed; results take its type.
    columns : tuple of Column
    values : array, shape (n, d), float64
        NaN where missing; positions of levels for columns that have some.
    """

    source: Any
    columns: tuple[Column, ...]
    values: np.ndarray

    def restored(self, values: np.ndarray) -> Any:
        """A table like the source whose missing cells are those of `values`; they stay missing where these are NaN."""
        result, frame = self.source, library_of(self.source) in _FRAMES
        array = None if frame else np.array(self.source)
        for j, column in enumerate(self.columns):
            holes = np.isnan(self.values[:, j]) & ~np.isnan(values[:, j])
            if holes.any() and array is not None:
                array[holes, j] = _cells(column, values[holes, j])
            elif holes.any():
                result = _with_column(result, column, holes, values[holes, j])
        if array is not None:
            return result.copy(data=array) if library_of(result) == "xarray" else array
        return result if result is not self.source or library_of(result) == "pyarrow" else _copied(result)


_FRAMES = ("pandas", "polars", "pyarrow")


def library_of(data: Any) -> str:
    """Library of a table: "pandas", "polars", "pyarrow", "xarray", or "numpy" for arrays and all else."""
    root, kind = type(data).__module__.split(".")[0], type(data).__name__
    known = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table", "xarray": "DataArray"}
    return root if known.get(root) == kind else "numpy"


def names_of(frame: Any) -> list[Any]:
    """Names of the columns of a data frame."""
    return list(frame.column_names if library_of(frame) == "pyarrow" else frame.columns)


def _copied(frame: Any) -> Any:
    return frame.copy() if library_of(frame) == "pandas" else frame.clone()


def _cells(column: Column, values: np.ndarray) -> Any:
    """Numbers, or the levels that codes stand for."""
    if not column.levels:
        return values
    return [column.levels[int(code)] for code in values]


def _with_column(frame: Any, column: Column, holes: np.ndarray, values: np.ndarray) -> Any:
    library, place = library_of(frame), names_of(frame).index(column.name)
    if library == "pandas":
        frame, series = frame.copy(deep=False), frame.iloc[:, place]
        cells = _cells(column, values) if column.levels else as_cells(values, series.dtype)
        frame.isetitem(place, with_series_cells(series, holes, cells))
        return frame
    if library == "pyarrow" and not column.levels:
        return with_cells(frame, place, holes, values)
    if library == "polars" and not column.levels:
        return frame.with_columns(with_polars_cells(frame[column.name], holes, values))
    cells = dict(zip(np.flatnonzero(holes).tolist(), _cells(column, values), strict=True))
    if library == "pyarrow":
        return with_objects(frame, place, cells)
    series = frame[column.name]
    found = series.to_list()
    for at, cell in cells.items():
        found[at] = cell
    return frame.with_columns(import_module("polars").Series(column.name, found, dtype=series.dtype))


def read_frame(data: Any, kinds: Mapping[Any, str] | None = None, columns: tuple[Column, ...] | None = None) -> Frame:
    """Read a table.

    Parameters
    ----------
    data : array, pandas or polars data frame, pyarrow Table or xarray DataArray, shape (n, d)
        Missing are NaN, None, and masked cells of a masked array. Columns of dates and times, and an index that
        pandas wrote, are left aside.
    kinds : mapping of column names (numbers for arrays) to kinds, optional
        Where they differ from what the dtypes say.
    columns : tuple of Column, optional
        Those that a model was fitted to, which the table must then have.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If it is no table of numbers, text and truth values with these columns.
    """
    library = library_of(data)
    if library not in _FRAMES:
        array = _array(data)
        data = data if library == "xarray" else array
        names: list[Any] = list(range(array.shape[1]))
        read = [(s, _of_objects(s) if s.dtype == object else ("real", None)) for s in array.T]
    else:
        names = names_of(data)
        if len(set(names)) < len(names):
            raise ShapeError(
                "two columns have one name, but results are found by name. Rename them.", argument="data", value=names
            )
        every = [data.iloc[:, j] if library == "pandas" else data[name] for j, name in enumerate(names)]
        index = pandas_index(data.schema) if library == "pyarrow" else ()
        dtypes = [s.type if library == "pyarrow" else s.dtype for s in every]
        kept = [j for j, dtype in enumerate(dtypes) if not is_time(dtype) and names[j] not in index]
        names = [names[j] for j in kept]
        read = [_OF_LIBRARY[library](names[place], every[j]) for place, j in enumerate(kept)]
        if not kept:
            raise DTypeError("the table has no column but dates and times. Pass others, too.", argument="data", value=0)
    series, found = [one[0] for one in read], [one[1] for one in read]
    if columns is None:
        return Frame(data, *read_columns(names, series, found, kinds or {}))
    known = [column.name for column in columns]
    if names != known:
        raise ShapeError(
            f"the table has the columns {_shown(names)}, but the model was fitted to {_shown(known)}. Pass the same, in their "
            "order; names come with a data frame.",
            argument="data",
            value=names,
            limit=known,
        )
    values = [
        codes_of(column, s) if column.levels else read_columns([column.name], [s], [(column.kind, None)], {})[1][:, 0]
        for column, s in zip(columns, series, strict=True)
    ]
    return Frame(data, columns, np.column_stack(values))


def _shown(names: list[Any]) -> str:
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _array(data: Any) -> np.ndarray:
    if hasattr(data, "toarray"):
        raise DTypeError(
            "the table is a sparse matrix, of which nobody knows whether what is not stored is 0 or missing. Pass "
            "data.toarray() with NaN where a cell is missing; for ratings, dmf.complete, to which it is missing.",
            argument="data",
            value=type(data).__name__,
            limit="array or data frame",
        )
    if isinstance(data, np.ma.MaskedArray):
        empty: Any = np.nan if data.dtype.kind in "fiub" else None
        data = np.where(np.ma.getmaskarray(data), empty, data.data)
    array = np.asarray(data)
    if array.ndim != 2:
        raise ShapeError(
            f"the table has shape {array.shape}, but rows and columns are needed. Pass a two-dimensional array.",
            argument="data",
            value=array.shape,
            limit="(n, d)",
        )
    if array.dtype.kind not in "fiubO":
        if array.dtype.kind in "US":
            return array.astype(object)
        raise DTypeError(
            f"the table has dtype {array.dtype}, but cells are real numbers, text or truth values.",
            argument="data",
            value=array.dtype,
            limit="real numbers, text, truth values",
        )
    return array


def _of_objects(values: np.ndarray) -> tuple[str, list[Any] | None]:
    """Kind of a column of objects: real if all are numbers, boolean if all are truth values, else nominal."""
    types = {type(v) for v in values if not is_missing(v)}
    if types <= {bool, np.bool_} and types:
        return "boolean", None
    return ("real" if all(issubclass(t, (int, float, np.number)) for t in types) else "nominal"), None


_Read = tuple[np.ndarray, tuple[str, list[Any] | None]]  # values of a column, and what its dtype says of its kind


def _of_pandas(name: Any, series: Any) -> _Read:
    dtype = series.dtype
    if is_sparse_dtype(dtype):
        return _of_pandas(name, series.sparse.to_dense())
    if hasattr(dtype, "categories"):
        kind = "ordinal" if dtype.ordered else "nominal"
        return series.to_numpy(dtype=object), (kind, list(dtype.categories) if dtype.ordered else None)
    if dtype.kind == "b":
        return series.to_numpy(dtype=object), ("boolean", None)
    if dtype.kind in "iuf":
        return series.to_numpy(dtype=float, na_value=np.nan), ("real" if dtype.kind == "f" else "count", None)
    if dtype.kind == "O":
        return _objects([None if gone else v for v, gone in zip(series, series.isna(), strict=True)])
    raise _no_cells(name, dtype)


def _of_polars(name: Any, series: Any) -> _Read:
    dtype, text = series.dtype, str(series.dtype).lower()
    if dtype.is_numeric():
        return _floats(series.to_list()), ("count" if dtype.is_integer() else "real", None)
    if text.startswith("enum"):
        return _objects(series.to_list())[0], ("ordinal", dtype.categories.to_list())
    if text.startswith(("boolean", "string", "categorical", "null", "object")):
        return _objects(series.to_list())
    raise _no_cells(name, dtype)


def _of_arrow(name: Any, column: Any) -> _Read:
    kinds, dtype = import_module("pyarrow").types, column.type
    whole = kinds.is_integer(dtype)
    if whole or kinds.is_floating(dtype) or kinds.is_decimal(dtype):
        return _floats(column.to_pylist()), ("count" if whole else "real", None)
    if kinds.is_dictionary(dtype) and dtype.ordered:
        return _objects(column.to_pylist())[0], ("ordinal", column.unify_dictionaries().chunk(0).dictionary.to_pylist())
    if any(test(dtype) for test in (kinds.is_boolean, kinds.is_null, kinds.is_dictionary, kinds.is_string,
                                    kinds.is_large_string)):  # fmt: skip
        return _objects(column.to_pylist())
    raise _no_cells(name, dtype)


_OF_LIBRARY = {"pandas": _of_pandas, "polars": _of_polars, "pyarrow": _of_arrow}


def _floats(cells: list[Any]) -> np.ndarray:
    return np.array([np.nan if cell is None else cell for cell in cells], float)


def _objects(cells: list[Any]) -> _Read:
    values = np.array([*cells, None], object)[:-1]
    return values, _of_objects(values)


def _no_cells(name: Any, dtype: Any) -> DTypeError:
    return DTypeError(
        f"column {name!r} has dtype {dtype}, but columns hold numbers, text or truth values. Leave it out, or turn it into "
        "numbers.",
        argument="data",
        value=str(dtype),
        limit="numbers, text, truth values",
    )
