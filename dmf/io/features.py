"""Features of rows or of columns, numbers and categories, as the columns of numbers that models take."""

from __future__ import annotations

import math
import numbers
import os
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from dmf.arrays.backend import as_array, to_host
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.io.cells import Cells, Stated
from dmf.io.delimited import open_delimited
from dmf.io.forms import is_time, text_of
from dmf.io.messages import ignored, listed
from dmf.io.reading import readable

MOST_LEVELS = 50  # of a category that have a column of their own, the most frequent ones
_SEEN_ONCE = 1  # a level that no other row shares tells nothing of others
_SEPARATOR = "|"  # between several levels in one cell, such as "Action|Comedy"
_HOW = Cells(Stated())


@dataclass(frozen=True)
class FeatureTable:
    """Features as they came: a column of numbers (NaN: missing) or of texts (None: missing) for each.

    Attributes
    ----------
    columns : dict of str to NumPy arrays, shape (n,)
    ids : tuple of str, or None
        Whose features these are; None: in the order of the rows or columns of the matrix.
    notes : tuple of str
        What was found and assumed while reading a file.
    """

    columns: dict[str, np.ndarray]
    ids: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number n of rows or columns that have features."""
        return len(next(iter(self.columns.values()))) if self.ids is None else len(self.ids)


@dataclass(frozen=True)
class Feature:
    """How one feature becomes columns of numbers: one, or one for each level of a category.

    Attributes
    ----------
    name : str
    levels : tuple of str
        Of a category; empty for numbers.
    centre : tuple of float
        Mean of each column, which is taken away; so what is missing becomes 0.
    scale : float
        What they are then divided by: the standard deviation of numbers, 1 for categories.
    """

    name: str
    levels: tuple[str, ...]
    centre: tuple[float, ...]
    scale: float

    @classmethod
    def of(cls, name: str, cells: np.ndarray) -> Feature | None:
        """Learned from cells, shape (n,); None if they tell nothing, as all that are known are alike, or each is another."""
        if cells.dtype == object:
            counts: dict[str, int] = {}
            for level in (level for cell in cells if cell is not None for level in cell.split(_SEPARATOR)):
                counts[level] = counts.get(level, 0) + 1
            shared = [level for level in sorted(counts, key=lambda k: (-counts[k], k)) if counts[level] > _SEEN_ONCE]
            levels = tuple(shared[:MOST_LEVELS])
            known = sum(cell is not None for cell in cells)
            if not levels or (len(counts) == 1 and known == len(cells)):
                return None
            return cls(name, levels, tuple(counts[level] / known for level in levels), 1.0)
        known = cells[~np.isnan(cells)]
        largest = float(np.max(np.abs(known), initial=0)) or 1.0
        spread = largest * float(np.std(known / largest)) if known.size else 0.0
        if not spread > 1e-12 * largest:
            return None
        return cls(name, (), (largest * float(np.mean(known / largest)),), spread)

    def encoded(self, cells: np.ndarray) -> np.ndarray:
        """Columns for models, shape (n, number of them), float64; what is missing, or a level not known, is 0 throughout."""
        if not self.levels:
            found = (cells.astype(float) - self.centre[0]) / self.scale
            return np.where(np.isnan(found), 0, found)[:, None]
        place = {level: k for k, level in enumerate(self.levels)}
        found = np.zeros((len(cells), len(self.levels)))
        for row, cell in zip(found, cells, strict=True):
            if cell is not None:
                row -= self.centre
                for level in set(cell.split(_SEPARATOR)) & place.keys():
                    row[place[level]] += 1
        return found


def read_features(data: Any, argument: str) -> FeatureTable:
    """Features from the forms in which Python has them.

    Parameters
    ----------
    data : array (n,) or (n, p), pandas or polars DataFrame, pyarrow Table, or dict
        A dict holds by id a number or text, a sequence of them, or a dict of them by name. Of pandas' frames the index holds the
        ids, of others the first column. Arrays have none. Columns of dates are left aside.
    argument : str
        What to call them in errors.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        If they have no such form, ids repeat, or a number is infinite.
    """
    library = type(data).__module__.partition(".")[0]
    if isinstance(data, FeatureTable):
        return data
    if isinstance(data, Mapping):
        return _of_mapping(data, argument)
    if library in ("pandas", "polars", "pyarrow") and hasattr(data, "columns"):
        names = list(data.column_names if library == "pyarrow" else data.columns)
        dtypes = list(data.schema.types if library == "pyarrow" else data.dtypes)
        series = [data.iloc[:, k] if library == "pandas" else data[name] for k, name in enumerate(names)]
        ids, first = (list(data.index), 0) if library == "pandas" else (_listed(series[0]), 1)
        kept = [k for k in range(first, len(names)) if not is_time(dtypes[k])]
        of_kind = {
            str(names[k]): _column(_listed(series[k]), argument, names[k], "categ" in str(dtypes[k]).lower())
            for k in kept
        }
        return _checked(FeatureTable(of_kind, tuple(map(text_of, ids))), argument)
    array = to_host(as_array(data, argument))
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ShapeError(
            f"{argument} has {array.ndim} dimensions, but features have two: a row of numbers for each.",
            argument=argument,
            value=array.shape,
            limit=2,
        )
    columns = {str(k): _column(array[:, k].tolist(), argument, k, False) for k in range(array.shape[1])}
    return _checked(FeatureTable(columns), argument)


def read_feature_file(path: str | os.PathLike, known: Container[str], argument: str) -> FeatureTable:
    """Features from delimited text: the first column holds the ids, and the first line the names where its id is not `known`.

    A column whose cells are all numbers, or missing, holds numbers; any other one is a category.

    Raises
    ------
    FileError
        If the file cannot be read, or an id repeats.
    """

    def plausible(record: list[str]) -> bool:
        return record[0].strip() in known

    with readable(path) as file, open_delimited(file, ("id", "feature"), plausible) as text:
        header = not text.single and text.first[0] not in known
        names = text.first[1:] if header else [str(k) for k in range(1, text.width)]
        if header:
            text.skip_header()
        ids: dict[str, None] = {}
        cells: list[list[str]] = [[] for _ in names]
        for line, record in text:
            if record[0].strip() in ids or not record[0].strip():
                raise text.error(
                    f"the id {record[0].strip()!r} is empty, or was there before. Give each one line.", line
                )
            ids[record[0].strip()] = None
            for column, cell in zip(cells, record[1:], strict=True):
                column.append(cell.strip())
        columns = {name: _of_texts(column) for name, column in zip(names, cells, strict=True)}
        told = [f"{name} ({'category' if a.dtype == object else 'number'})" for name, a in columns.items()]
        left = ignored("features that tell nothing", [n for n, a in columns.items() if Feature.of(n, a) is None])
        about = f"{path}: {text.dialect()}, {'a header' if header else 'no header'}; {len(ids)} ids with the features "
        return _checked(FeatureTable(columns, tuple(ids), (about + ", ".join(listed(told)), *left)), argument)


def _of_mapping(data: Mapping[Any, Any], argument: str) -> FeatureTable:
    rows: list[Any] = [row if isinstance(row, Mapping) else row if _is_listed(row) else [row] for row in data.values()]
    named = [isinstance(row, Mapping) for row in rows]
    lengths = {len(row) for row, has_names in zip(rows, named, strict=True) if not has_names}
    if any(named) != all(named) or len(lengths) > 1 or not rows:
        raise ShapeError(
            f"{argument} holds, by id, features of {sorted(lengths)} numbers and {sum(named)} dicts, but all are alike.",
            argument=argument,
            value=len(rows),
        )
    names = list(dict.fromkeys(name for row in rows for name in row)) if all(named) else list(range(lengths.pop()))
    cells: Callable[[Any, Any], Any] = (lambda row, name: row.get(name)) if all(named) else (lambda row, k: row[k])
    columns = {str(name): _column([cells(row, name) for row in rows], argument, name, False) for name in names}
    return _checked(FeatureTable(columns, tuple(map(text_of, data))), argument)


def _is_listed(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


def _listed(series: Any) -> list[Any]:
    return (
        series.to_pylist()
        if hasattr(series, "to_pylist")
        else series.tolist()
        if hasattr(series, "tolist")
        else list(series)
    )


def _column(cells: list[Any], argument: str, name: Any, category: bool) -> np.ndarray:
    """Numbers, or texts where a cell is one or all are said to be."""
    gone = [cell is None or cell != cell for cell in map(_plain, cells)]
    known = [cell for cell, missing in zip(cells, gone, strict=True) if not missing]
    if all(isinstance(cell, (numbers.Real, Decimal, np.bool_)) for cell in known) and not category:
        return np.array([math.nan if missing else float(cell) for cell, missing in zip(cells, gone, strict=True)])
    wrong = next((cell for cell in known if not isinstance(cell, (str, bytes, numbers.Real, np.bool_))), None)
    if wrong is not None:
        raise DTypeError(
            f"{argument}, {name!r}, holds a {type(wrong).__name__}, but features are numbers, texts and truth values. Leave it "
            "out, or convert it.",
            argument=argument,
            value=type(wrong).__name__,
            limit="numbers, texts, truth values",
        )
    return np.array([None if missing else text_of(cell) for cell, missing in zip(cells, gone, strict=True)], object)


def _plain(cell: Any) -> Any:
    """The cell; None for those of pandas that do not compare."""
    return None if type(cell).__name__ in ("NAType", "NaTType") else cell


def _of_texts(cells: list[str]) -> np.ndarray:
    gone = [_HOW.is_missing(cell) for cell in cells]
    if all(missing or _HOW.is_number(cell) for cell, missing in zip(cells, gone, strict=True)):
        return np.array([math.nan if missing else _HOW.number(cell) for cell, missing in zip(cells, gone, strict=True)])
    return np.array([None if missing else cell for cell, missing in zip(cells, gone, strict=True)], object)


def _checked(table: FeatureTable, argument: str) -> FeatureTable:
    if not table.columns or table.size == 0:
        raise ShapeError(f"{argument} has no feature, but at least 1 is needed.", argument=argument, value=0, limit=1)
    for name, cells in table.columns.items():
        if cells.dtype != object and np.isinf(cells).any():
            raise ArgumentError(
                f"{argument}, {name!r}, holds an infinite number. Leave it out where it is missing (NaN, None).",
                argument=argument,
                value=math.inf,
                limit="finite",
            )
    if table.ids is not None and len(set(table.ids)) < len(table.ids):
        repeated = Counter(table.ids).most_common(1)[0][0]
        raise ArgumentError(
            f"{argument} has the id {repeated!r} more than once. Give each one set of features.",
            argument=argument,
            value=repeated,
        )
    return table
