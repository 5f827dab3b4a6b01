"""What a solver returns: network, history, status; how it is read and filled in; saving and loading it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, as_array, check_device, free_memory, from_host, library, move, namespace, to_host
from dmf.arrays.checks import check_kind
from dmf.errors import ArgumentError, ObservationError, ShapeError
from dmf.models import DeepLinearNetwork
from dmf.models.offsets import Offsets
from dmf.observations import Observations
from dmf.recovery.model_files import are_names, read_model, write_model

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
    bounds : (float, float) or None
        Least and largest value of a prediction; those beyond are moved there.
    residuals : array, shape (n,), or None
        Observed minus predicted values of entries held out, by the model fitted without them (see `dmf.calibrate`); not saved
        in model files.
    """

    network: DeepLinearNetwork
    history: History
    status: Status
    offsets: Offsets | None = None
    observations: Observations | None = None
    options: dict[str, Any] = field(default_factory=dict)
    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None
    bounds: tuple[float, float] | None = None
    residuals: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(d1, d2) of the recovered matrix."""
        return self.network.shape

    def factors(self) -> tuple[Array, Array]:
        """The recovered matrix, offsets included and before bounds, as a product of arrays (d1, w) and (w, d2)."""
        left, right = self.network.factors()
        if self.offsets is None:
            return left, right
        more_left, more_right = self.offsets.factors()
        xp = namespace(left)
        return xp.concat([left, more_left], axis=1), xp.concat([right, more_right], axis=0)

    def bounded(self, values: Array) -> Array:
        """`values`, of any shape, moved into the bounds."""
        if self.bounds is None:
            return values
        return namespace(values).clip(values, *self.bounds)

    def product(self) -> Array:
        """The recovered matrix, shape (d1, d2), offsets included and within the bounds."""
        self._check_memory()
        left, right = self.factors()
        return self.bounded(left @ right)

    def predict(self, rows: Array, cols: Array) -> Array:
        """Entries of the recovered matrix, offsets included and within the bounds.

        Parameters
        ----------
        rows, cols : integer arrays, shape (m,)

        Returns
        -------
        array, shape (m,)
        """
        rows, cols = as_array(rows, "rows"), as_array(cols, "cols")
        values = self.network.entries(rows, cols)
        if self.offsets is not None:
            xp = namespace(values)
            rows, cols = xp.astype(rows, xp.int64), xp.astype(cols, xp.int64)
            values = values + self.offsets.mean + xp.take(self.offsets.row, rows) + xp.take(self.offsets.col, cols)
        return self.bounded(values)

    def predict_named(self, row_ids: Sequence[str], col_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Entries for rows and columns given by name (by position counted from 0, where the data had no names).

        A row or column that was not in the data has no factor and no offset: its prediction is the mean plus the offset
        of the other side.

        Parameters
        ----------
        row_ids, col_ids : sequences of str, of one length

        Returns
        -------
        values : NumPy array, shape (m,)
        known : bool array, shape (m,)
            False for pairs with an unknown row or column.

        Raises
        ------
        ShapeError
            If there are not as many row as column names.
        ObservationError
            If there are unknown ones and the model has no offsets.
        """
        if len(row_ids) != len(col_ids):
            raise ShapeError(
                f"there are {len(row_ids)} row_ids and {len(col_ids)} col_ids, but each pair of them names an entry. Pass as "
                "many of one as of the other.",
                argument="row_ids, col_ids",
                value=(len(row_ids), len(col_ids)),
            )
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
        return self.bounded(values), known

    def _index(self, index: np.ndarray) -> Array:
        return from_host(index, self.network.weights[0])

    def filled(self, observations: Observations | None = None) -> Array:
        """The whole matrix: observed entries kept, the others predicted, within the bounds.

        Parameters
        ----------
        observations : Observations, optional
            Needed for a recovery that was loaded from a file, as files do not hold the data.

        Returns
        -------
        array, shape (d1, d2)
            An entry that was observed several times is the mean of these observations.
        """
        if observations is None:
            observations = self.observations
        if observations is None:
            raise ArgumentError(
                "observations are missing: a loaded model holds no data. Pass filled(observations=...), or use product() "
                "for predictions everywhere.",
                argument="observations",
            )
        check_kind(
            "observations", observations, Observations, "Pass for example SampledEntries.from_dense(array with NaN)."
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
        weight = self.network.weights[0]
        needed = self.shape[0] * self.shape[1] * to_host(weight[:1, :1]).itemsize
        available = free_memory(weight)
        if available is not None and needed > available:
            where = "the device" if library(weight) == "cupy" else "this machine"
            raise ArgumentError(
                f"the whole {self.shape[0]} x {self.shape[1]} matrix takes {needed / 1e9:.1f} GB, but {where} has "
                f"{available / 1e9:.1f} GB. Use predict(rows, cols) for the entries you need.",
                argument="shape",
                value=needed,
                limit=available,
            )

    def to_device(self, device: str) -> Recovery:
        """The same recovery on another device.

        Parameters
        ----------
        device : str
            "cpu" for NumPy arrays, "cuda" or "cuda:N" for CuPy arrays.

        Returns
        -------
        Recovery
            Its observations are moved, too. Calls that compute on a CUDA device other than the current one belong into
            ``with cupy.cuda.Device(N):``.

        Raises
        ------
        ArgumentError
            If there is no such device.
        MissingPackageError
            If CuPy is needed and not installed, or finds no device.
        BackendError
            If it has observations by an operator that cannot be moved.
        """
        offsets = self.offsets
        if offsets is not None:
            offsets = replace(offsets, row=move(offsets.row, device), col=move(offsets.col, device))
        return replace(
            self,
            network=DeepLinearNetwork(move(w, device) for w in self.network.weights),
            offsets=offsets,
            observations=None if self.observations is None else self.observations.to_device(device),
            residuals=None if self.residuals is None else move(self.residuals, device),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write network, offsets, history, status, options, ids and bounds to a model file (npz; not the data).

        Raises
        ------
        FileError
            If it cannot be written; a file that was there before is then untouched.
        """
        write_model(
            path,
            self.network,
            self.history,
            (self.status.reason, self.status.advice),
            offsets=self.offsets,
            options=self.options,
            row_ids=self.row_ids,
            col_ids=self.col_ids,
            bounds=self.bounds,
        )

    def with_ids(self, row_ids: Sequence[str] | None, col_ids: Sequence[str] | None) -> Recovery:
        """The same recovery with names for rows and columns.

        Raises
        ------
        ArgumentError
            If names are not strings, not all different, or not one for each row or column.
        """
        names = [None if ids is None else tuple(ids) for ids in (row_ids, col_ids)]
        for argument, ids, size in zip(("row_ids", "col_ids"), names, self.shape, strict=True):
            if ids is not None and not are_names(ids, size):
                raise ArgumentError(
                    f"{argument} holds {len(ids)} names, but {size} different strings are needed. Pass one for each.",
                    argument=argument,
                    value=len(ids),
                    limit=size,
                )
        return replace(self, row_ids=names[0], col_ids=names[1])


def _positions(names: Sequence[str], known: tuple[str, ...] | None, size: int) -> np.ndarray:
    """Position of each name, -1 for unknown ones."""
    if known is not None:
        table = {name: position for position, name in enumerate(known)}
        return np.asarray([table.get(name, -1) for name in names], dtype=np.int64)
    return np.asarray([position_of(name, size) for name in names], dtype=np.int64)


def position_of(name: str, size: int) -> int:
    """Position that a name stands for among `size` rows or columns without names, which are numbered from 0; -1: none."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else -1  # which fit an int64
    return number if number < size else -1


def load(path: str | os.PathLike, device: str = "cpu") -> Recovery:
    """Read a model file that `Recovery.save` wrote.

    Nothing in the file is trusted: no pickle, and every field is checked for presence, type, shape and finite numbers.

    Parameters
    ----------
    path : path
    device : str
        "cpu" for NumPy arrays, "cuda" or "cuda:N" for CuPy arrays.

    Returns
    -------
    Recovery
        Without observations.

    Raises
    ------
    FileError
        If the file cannot be read, is truncated, or is not a valid model.
    ArgumentError, MissingPackageError
        If there is no such device, or CuPy is missing.
    """
    check_device(device)
    fields = read_model(path, REASONS)
    history, status = History(fields.pop("history")), Status(*fields.pop("status"))
    return Recovery(history=history, status=status, **fields).to_device(device)
