"""Tables in and out: arrays, pandas and polars data frames, all with their own dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from dmf.errors import DTypeError, ShapeError
from dmf.io.arrow import as_cells
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
        if library_of(self.source) == "numpy":
            result = np.array(self.source)
            for j, column in enumerate(self.columns):
                holes = np.isnan(self.values[:, j]) & ~np.isnan(values[:, j])
                if holes.any():
                    result[holes, j] = _cells(column, values[holes, j])
            return result
        result = self.source.copy() if library_of(self.source) == "pandas" else self.source.clone()
        for j, column in enumerate(self.columns):
            holes = np.isnan(self.values[:, j]) & ~np.isnan(values[:, j])
            if holes.any():
                result = _with_column(result, column, holes, values[holes, j])
        return result


def library_of(data: Any) -> str:
    """Library of a table: "pandas", "polars" or "numpy"."""
    root = type(data).__module__.split(".")[0]
    return root if root in ("pandas", "polars") and hasattr(data, "columns") else "numpy"


def _cells(column: Column, values: np.ndarray) -> Any:
    """Numbers, or the levels that codes stand for."""
    if not column.levels:
        return values
    return [column.levels[int(code)] for code in values]


def _with_column(frame: Any, column: Column, holes: np.ndarray, values: np.ndarray) -> Any:
    if library_of(frame) == "pandas":
        place = list(frame.columns).index(column.name)
        series = frame.iloc[:, place].copy()
        cells = _cells(column, values) if column.levels else as_cells(values, series.dtype)
        series.iloc[np.flatnonzero(holes)] = cells
        frame.isetitem(place, series)
        return frame
    polars = import_module("polars")
    series = frame[column.name]
    cells = _cells(column, values) if column.levels else as_cells(values, series.dtype).tolist()
    found = series.to_list()
    for at, cell in zip(np.flatnonzero(holes), cells, strict=True):
        found[at] = int(cell) if series.dtype.is_integer() else cell
    return frame.with_columns(polars.Series(column.name, found, dtype=series.dtype))


def read_frame(data: Any, kinds: Mapping[Any, str] | None = None, columns: tuple[Column, ...] | None = None) -> Frame:
    """Read a table.

    Parameters
    ----------
    data : array, pandas or polars data frame, shape (n, d)
        Missing are NaN, None, and masked cells of a masked array.
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
    if library == "numpy":
        data = _array(data)
        names: list[Any] = list(range(data.shape[1]))
        series = [data[:, j] for j in names]
        found: list[tuple[str, list[Any] | None]] = [
            _of_objects(s) if s.dtype == object else ("real", None) for s in series
        ]
    else:
        names = list(data.columns)
        if len(set(names)) < len(names):
            raise ShapeError(
                "two columns have one name, but results are found by name. Rename them.", argument="data", value=names
            )
        read = [
            _of_series(data.iloc[:, j] if library == "pandas" else data[name], library) for j, name in enumerate(names)
        ]
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


def _of_series(series: Any, library: str) -> tuple[np.ndarray, tuple[str, list[Any] | None]]:
    """Values of a column of a data frame, and what its dtype says of its kind."""
    dtype = series.dtype
    name = str(dtype).lower()
    if library == "pandas":
        if hasattr(dtype, "categories"):
            kind = "ordinal" if dtype.ordered else "nominal"
            return series.to_numpy(dtype=object), (kind, list(dtype.categories) if dtype.ordered else None)
        if dtype.kind == "b":
            return series.to_numpy(dtype=object), ("boolean", None)
        if dtype.kind in "iuf":
            return series.to_numpy(dtype=float, na_value=np.nan), ("real" if dtype.kind == "f" else "count", None)
        if dtype.kind == "O":
            values = np.array([None if gone else v for v, gone in zip(series, series.isna(), strict=True)], object)
            return values, _of_objects(values)
    else:
        if dtype.is_numeric():
            values = np.array([np.nan if v is None else v for v in series.to_list()], float)
            return values, ("count" if dtype.is_integer() else "real", None)
        if name.startswith("enum"):
            return np.array(series.to_list(), object), ("ordinal", dtype.categories.to_list())
        if name == "boolean":
            return np.array([*series.to_list(), None], object)[:-1], ("boolean", None)
        if name.startswith(("string", "categorical", "null", "object")):
            values = np.array([*series.to_list(), None], object)[:-1]
            return values, _of_objects(values)
    raise DTypeError(
        f"column {series.name!r} has dtype {dtype}, but columns hold numbers, text or truth values. Leave it out, or turn it "
        "into numbers.",
        argument="data",
        value=str(dtype),
        limit="numbers, text, truth values",
    )
