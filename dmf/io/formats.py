"""Matrices in npy and npz files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from dmf.errors import FileError
from dmf.io.arrays import open_npz, read_npy
from dmf.io.messages import ignored, listed, shown, times
from dmf.io.reading import Entries, Matrix, check_extent, check_positions, checked, real
from dmf.io.writing import write_atomically

_SPARSE = {"coo": ("row", "col"), "csr": ("indices", "indptr"), "csc": ("indices", "indptr")}


class KeptArray:
    """An array as it was, and where it holds NaN; attributes and method as of `dmf.io.filling.Text`."""

    n_left_empty = 0

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        places = np.argwhere(np.isnan(array)) if array.dtype.kind == "f" else np.empty((0, 2), int)
        self.holes = np.hstack([places, places])

    def write_filled(self, path: str | os.PathLike, values: np.ndarray) -> None:
        """Write the array, in its dtype, with `values` in its holes."""
        filled = self._array.copy()
        filled[tuple(self.holes[:, :2].T)] = values
        write_atomically(path, lambda file: np.save(file, filled))


def load_npy(path: Path) -> Matrix:
    """Read one array."""
    array = read_npy(path)
    return replace(_dense(path, array, []), text=KeptArray(array))


def _dense(path: Path, array: np.ndarray, notes: list[str]) -> Matrix:
    matrix = checked(array, path)
    missing = int(np.count_nonzero(np.isnan(matrix)))
    notes = [f"dense {array.dtype} array {times(array.shape)}", *notes]
    if missing:
        notes.append(f"{missing} of {matrix.size} entries are NaN, which marks them as missing")
    return Matrix(matrix, notes=tuple(notes))


def members_text(names: list[str]) -> str:
    """What an npz file holds, for messages."""
    return "the members " + ", ".join(listed([repr(name) for name in names])) if names else "no array"


def load_npz(path: Path) -> Entries | Matrix:
    """Read one array, the members rows, cols, values, or a SciPy sparse matrix."""
    with open_npz(path) as archive:
        names = archive.names
        if {"format", "shape", "data"} <= set(names):
            return _sparse(path, archive)
        if {"rows", "cols", "values"} <= set(names):
            wanted = [name for name in names if name in ("rows", "cols", "values", "shape")]
            members = {name: archive.read(name) for name in wanted}
            notes = ignored("members", [name for name in names if name not in members])
            return _triplets(path, members, notes)
        if len(names) == 1:
            return _dense(path, archive.read(names[0]), [])
    advice = " For measurements A and y use `dmf sense`." if {"A", "y"} <= set(names) else ""
    raise FileError(
        f"cannot read {path}: it holds {members_text(names)}, but a matrix is one array, or the members 'rows', 'cols' and "
        f"'values', or what scipy.sparse.save_npz writes.{advice}"
    )


def _triplets(path: Path, members: dict[str, np.ndarray], notes: list[str]) -> Entries:
    rows, cols, values = members["rows"], members["cols"], real(members["values"], path)
    if "shape" in members:
        shape = tuple(members["shape"].ravel().tolist())
    else:
        shape = tuple(int(i.max()) + 1 if i.dtype.kind in "iu" else 1 for i in (rows, cols))  # others are refused below
    check_positions(path, rows, cols, values, shape)
    return Entries(rows, cols, values, shape, notes=("members rows, cols, values", *notes))


def _sparse(path: Path, archive) -> Entries:
    content = archive.read("format", "S")
    kind = bytes(content.ravel()[:1].tolist()[0]).decode("latin-1") if content.dtype.kind == "S" else ""
    if kind not in _SPARSE:
        raise FileError(
            f"cannot read {path}: a sparse matrix in the format {shown(kind)}, but {', '.join(_SPARSE)} are read. "
            "Convert it with .tocoo() before scipy.sparse.save_npz."
        )
    needed = ["data", *_SPARSE[kind]]
    if missing := [name for name in needed if name not in archive.names]:
        raise FileError(f"cannot read {path}: no intact {kind} matrix (no member {missing[0]!r}). Write it again.")
    data, one, other = (archive.read(name, empty=True) for name in needed)
    data = real(data, path)  # sums of small integers would overflow
    shape = tuple(archive.read("shape").ravel().tolist())
    check_extent(path, shape, data.size)
    import scipy.sparse  # here: the import takes a tenth of a second

    try:
        if one.dtype.kind not in "iu" or other.dtype.kind not in "iu" or not data.ndim == one.ndim == other.ndim == 1:
            raise ValueError("data and indices are no vectors of numbers and integers")
        if kind == "coo":
            matrix = scipy.sparse.coo_array((data, (one, other)), shape)
        else:
            maker = scipy.sparse.csr_array if kind == "csr" else scipy.sparse.csc_array
            matrix = maker((data, one, other), shape)
            matrix.check_format(full_check=True)  # SciPy's conversions trust the indices
        coo = matrix.tocoo(copy=True)
        coo.sum_duplicates()
    except (TypeError, ValueError, OverflowError) as error:
        raise FileError(f"cannot read {path}: no intact {kind} matrix ({error}). Write it again.") from error
    notes = (f"{kind} matrix {times(shape)}; stored entries are observed",)
    (rows, cols), values = coo.coords, coo.data
    check_positions(path, rows, cols, values, coo.shape)
    return Entries(rows, cols, values, coo.shape, notes=notes)
