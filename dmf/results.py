"""What a solver returns: network, history, status; how it is read, filled in, saved and loaded."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from dmf.backend import Array, as_array, from_host, namespace, to_host
from dmf.errors import ArgumentError, DmfError, FileError, ObservationError, ShapeError
from dmf.io.archive import read_archive, write_archive
from dmf.networks import DeepLinearNetwork
from dmf.observations import Observations
from dmf.offsets import Offsets

FORMAT = "dmf-model"
FORMAT_VERSION = 1
REASONS = ("converged", "budget spent", "diverged", "stopped", "interrupted")


@dataclass(frozen=True)
class Status:
    """Why a solver ended.

    Attributes
    ----------
    reason : {"converged", "budget spent", "diverged", "stopped", "interrupted"}
        "stopped": a callback asked for it. "interrupted": Ctrl-C.
    advice : str
        One sentence: what happened and what to do about it.
    """

    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.advice}"


class History(Mapping):
    """Numbers recorded along a run, one row for each recorded iteration; a mapping of column names to arrays.

    Parameters
    ----------
    columns : mapping of str to arrays, each with first dimension n
        At least those below; callbacks add more.

    Attributes
    ----------
    iteration : int array, shape (n,)
    loss : float64 array, shape (n,)
        Training loss, without weight decay.
    seconds : float64 array, shape (n,)
        Time spent in the solver so far; callbacks not counted.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = {name: np.asarray(column) for name, column in columns.items()}

    iteration = property(lambda self: self["iteration"])
    loss = property(lambda self: self["loss"])
    seconds = property(lambda self: self["seconds"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"History({len(self.iteration)} records of {', '.join(self)})"


@dataclass(frozen=True, eq=False)
class Recovery:
    """A recovered matrix: ``network.product()``, plus offsets where the model has them.

    Attributes
    ----------
    network : DeepLinearNetwork
    history : History
    status : Status
    offsets : Offsets or None
        Global mean, row and column offsets added to the network.
    observations : Observations or None
        What it was fitted to; not saved in model files.
    options : dict
        How it was obtained: solver options, what was chosen automatically, errors on held-out measurements.
    row_ids, col_ids : tuple of str, or None
        Names of rows and columns, if the data had any.
    """

    network: DeepLinearNetwork
    history: History
    status: Status
    offsets: Offsets | None = None
    observations: Observations | None = None
    options: dict[str, Any] = field(default_factory=dict)
    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(d1, d2) of the recovered matrix."""
        return self.network.shape

    def factors(self) -> tuple[Array, Array]:
        """The recovered matrix, offsets included, as a product of arrays (d1, w) and (w, d2)."""
        left, right = self.network.factors()
        if self.offsets is None:
            return left, right
        more_left, more_right = self.offsets.factors()
        xp = namespace(left)
        return xp.concat([left, more_left], axis=1), xp.concat([right, more_right], axis=0)

    def product(self) -> Array:
        """The recovered matrix, shape (d1, d2), offsets included."""
        self._check_memory()
        left, right = self.factors()
        return left @ right

    def predict(self, rows: Array, cols: Array) -> Array:
        """Entries of the recovered matrix, offsets included.

        Parameters
        ----------
        rows, cols : integer arrays, shape (m,)

        Returns
        -------
        array, shape (m,)
        """
        rows, cols = as_array(rows, "rows"), as_array(cols, "cols")
        values = self.network.entries(rows, cols)
        if self.offsets is None:
            return values
        xp = namespace(values)
        rows, cols = xp.astype(rows, xp.int64), xp.astype(cols, xp.int64)
        return values + self.offsets.mean + xp.take(self.offsets.row, rows) + xp.take(self.offsets.col, cols)

    def predict_named(self, row_ids: Sequence[str], col_ids: Sequence[str]) -> tuple[np.ndarray, int]:
        """Entries for rows and columns given by name (by position counted from 0, where the data had no names).

        A row or column that was not in the data has no factor and no offset: its prediction is the mean plus the offset
        of the other side.

        Parameters
        ----------
        row_ids, col_ids : sequences of str, of one length

        Returns
        -------
        values : NumPy array, shape (m,)
        unknown : int
            Number of pairs with an unknown row or column.

        Raises
        ------
        ObservationError
            If there are unknown ones and the model has no offsets.
        """
        rows = _positions(row_ids, self.row_ids, self.shape[0])
        cols = _positions(col_ids, self.col_ids, self.shape[1])
        known = (rows >= 0) & (cols >= 0)
        first = int(np.argmin(known)) if known.size else 0
        if self.offsets is None and not known.all():
            raise ObservationError(
                f"{int((~known).sum())} of {known.size} pairs have a row or column that was not in the data (the first: "
                f"{row_ids[first]}, {col_ids[first]}), and this model has no offsets to fall back on. Remove these pairs.",
                argument="row_ids, col_ids",
                value=(row_ids[first], col_ids[first]),
            )
        values = np.empty(known.size, to_host(self.network.weights[0]).dtype)
        values[known] = to_host(self.predict(*(self._index(index[known]) for index in (rows, cols))))
        if self.offsets is not None:
            row_offsets = np.append(to_host(self.offsets.row), 0)  # position -1 finds the 0
            col_offsets = np.append(to_host(self.offsets.col), 0)
            values[~known] = self.offsets.mean + row_offsets[rows[~known]] + col_offsets[cols[~known]]
        return values, int((~known).sum())

    def _index(self, index: np.ndarray) -> Array:
        return from_host(index, self.network.weights[0])

    def filled(self, observations: Observations | None = None) -> Array:
        """The whole matrix: observed entries kept, the others predicted.

        Parameters
        ----------
        observations : Observations, optional
            Needed for a recovery that was loaded from a file, as files do not hold the data.

        Returns
        -------
        array, shape (d1, d2)
            An entry that was observed several times is the mean of these observations.
        """
        observations = observations or self.observations
        if observations is None:
            raise ArgumentError(
                "observations are missing: a loaded model holds no data. Pass filled(observations=...), or use product() "
                "for predictions everywhere.",
                argument="observations",
            )
        if observations.shape != self.shape:
            raise ShapeError(
                f"observations are of a {observations.shape} matrix, but the model is of a {self.shape} one.",
                argument="observations",
                value=observations.shape,
                limit=self.shape,
            )
        return observations.fill(self.product())

    def _check_memory(self) -> None:
        needed = self.shape[0] * self.shape[1] * to_host(self.network.weights[0]).itemsize
        try:
            available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):  # not a POSIX system
            return
        if needed > available:
            raise ArgumentError(
                f"the whole {self.shape[0]} x {self.shape[1]} matrix takes {needed / 1e9:.1f} GB, but this machine has "
                f"{available / 1e9:.1f} GB. Use predict(rows, cols) for the entries you need.",
                argument="shape",
                value=needed,
                limit=available,
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write network, offsets, history, status, options and ids to a model file (npz; not the data).

        Raises
        ------
        FileError
            If it cannot be written; a file that was there before is then untouched.
        """
        arrays = {f"weights_{k}": to_host(w) for k, w in enumerate(self.network.weights, start=1)}
        arrays |= {f"history_{name}": column for name, column in self.history.items()}
        if self.offsets is not None:
            arrays |= {"offsets_row": to_host(self.offsets.row), "offsets_col": to_host(self.offsets.col)}
        for name, ids in (("row_ids", self.row_ids), ("col_ids", self.col_ids)):
            if ids is not None:
                arrays[name] = np.frombuffer(json.dumps(ids).encode(), np.uint8)
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dmf_version": version("dmf"),
            "dtype": str(to_host(self.network.weights[0]).dtype),
            "shapes": [list(w.shape) for w in self.network.weights],
            "mean": None if self.offsets is None else self.offsets.mean,
            "status": {"reason": self.status.reason, "advice": self.status.advice},
            "history": list(self.history),
            "options": _jsonable(self.options),
        }
        write_archive(path, header, arrays)

    def with_ids(self, row_ids: Sequence[str] | None, col_ids: Sequence[str] | None) -> Recovery:
        """The same recovery with names for rows and columns.

        Raises
        ------
        ArgumentError
            If names are not strings, not all different, or not one for each row or column.
        """
        names = [None if ids is None else tuple(ids) for ids in (row_ids, col_ids)]
        for argument, ids, size in zip(("row_ids", "col_ids"), names, self.shape, strict=True):
            if ids is not None and not _are_names(ids, size):
                raise ArgumentError(
                    f"{argument} holds {len(ids)} names, but {size} different strings are needed. Pass one for each.",
                    argument=argument,
                    value=len(ids),
                    limit=size,
                )
        return replace(self, row_ids=names[0], col_ids=names[1])


def _are_names(ids: Sequence[Any], size: int) -> bool:
    return all(isinstance(i, str) for i in ids) and len(ids) == len(set(ids)) == size


def _positions(names: Sequence[str], known: tuple[str, ...] | None, size: int) -> np.ndarray:
    """Position of each name, -1 for unknown ones."""
    if known is not None:
        table = {name: position for position, name in enumerate(known)}
        return np.asarray([table.get(name, -1) for name in names], dtype=np.int64)
    numbers = [int(name) if name.isascii() and name.isdigit() and len(name) < 19 else -1 for name in names]
    positions = np.asarray(numbers, dtype=np.int64)
    return np.where(positions < size, positions, -1)


def _jsonable(value: Any) -> Any:
    """`value` with NumPy numbers and containers turned into what JSON holds; NaN and infinities into None."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def load(path: str | os.PathLike) -> Recovery:
    """Read a model file that `Recovery.save` wrote.

    Nothing in the file is trusted: no pickle, and every field is checked for presence, type, shape and finite numbers.

    Parameters
    ----------
    path : path

    Returns
    -------
    Recovery
        With NumPy arrays and without observations.

    Raises
    ------
    FileError
        If the file cannot be read, is truncated, or is not a valid model.
    """
    header, arrays = read_archive(path)

    def fail(reason: str) -> FileError:
        return FileError(f"cannot read {path}: {reason}. Pass a model file that dmf wrote.")

    def take(name: str, shape: tuple[int | None, ...], kinds: str = "f") -> np.ndarray:
        array = arrays.get(name)
        if array is None:
            raise fail(f"the array {name!r} is missing")
        if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
            raise fail(f"the array {name!r} has shape {array.shape}, not {shape}")
        if array.dtype.kind not in kinds:
            raise fail(f"the array {name!r} has dtype {array.dtype}")
        return array

    def entry(name: str, *types: type) -> Any:
        value = header.get(name)
        if not isinstance(value, types) or isinstance(value, bool):
            raise fail(f"the header entry {name!r} is {value!r}")
        return value

    if header.get("format") != FORMAT:
        raise fail(f"its format is {header.get('format')!r}, not {FORMAT!r}")
    if header.get("format_version") != FORMAT_VERSION:
        raise fail(f"its format version is {header.get('format_version')!r}; this dmf reads {FORMAT_VERSION}")
    shapes = entry("shapes", list)
    if not all(isinstance(s, list) and len(s) == 2 and all(isinstance(n, int) for n in s) for s in shapes):
        raise fail("the header entry 'shapes' is not a list of pairs of integers")
    weights = [take(f"weights_{k}", tuple(s)) for k, s in enumerate(shapes, start=1)]
    if any(str(w.dtype) != entry("dtype", str) for w in weights):
        raise fail(f"weights of dtypes {[str(w.dtype) for w in weights]} under a header that says {header['dtype']!r}")
    try:
        network = DeepLinearNetwork(weights)
    except DmfError as error:
        raise fail(str(error).rstrip(".")) from error
    offsets = None
    if header.get("mean") is not None:
        row, col = take("offsets_row", (network.shape[0],)), take("offsets_col", (network.shape[1],))
        mean = entry("mean", int, float)
        if not abs(mean) <= sys.float_info.max:  # NaN, infinite, or an integer beyond any float
            raise fail("the header entry 'mean' is not a finite number")
        offsets = Offsets(float(mean), row, col)
        if not (np.isfinite(row).all() and np.isfinite(col).all() and row.dtype == col.dtype == network.dtype):
            raise fail("offsets are not finite or not of the dtype of the weights")
    names = entry("history", list)
    if not {"iteration", "loss", "seconds"} <= set(map(str, names)):
        raise fail("the history lacks iteration, loss or seconds")
    length = take("history_iteration", (None,), "iu").shape[0]
    if not all(np.isfinite(take(f"history_{name}", (length,))).all() for name in ("loss", "seconds")):
        raise fail("the history holds a loss or time that is not finite")
    columns = {}
    for name in map(str, names):
        column = arrays.get(f"history_{name}")
        if column is None or column.shape[:1] != (length,):
            raise fail(f"the history column {name!r} is missing or not of length {length}")
        columns[name] = column
    status = entry("status", dict)
    if status.get("reason") not in REASONS or not isinstance(status.get("advice"), str):
        raise fail(f"the header entry 'status' is {status!r}")
    ids = [
        _read_ids(arrays, name, size, fail) for name, size in zip(("row_ids", "col_ids"), network.shape, strict=True)
    ]
    return Recovery(
        network,
        History(columns),
        Status(status["reason"], status["advice"]),
        offsets,
        None,
        entry("options", dict),
        *ids,
    )


def _read_ids(arrays, name, size, fail):
    if name not in arrays:
        return None
    if arrays[name].dtype != np.uint8:
        raise fail(f"the array {name!r} has dtype {arrays[name].dtype}")
    try:
        ids = json.loads(arrays[name].tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise fail(f"{name} are not JSON") from error
    if not isinstance(ids, list) or not _are_names(ids, size):
        raise fail(f"{name} are not {size} different strings")
    return tuple(ids)
