"""Model files: the fields of a `Recovery` written to npz with a JSON header, and read back with suspicion."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from dmf.arrays.backend import to_host
from dmf.arrays.checks import check_bounds, check_path
from dmf.errors import ArgumentError, DmfError, FileError
from dmf.io.archive import read_archive, write_archive
from dmf.io.writing import jsonable
from dmf.models import DeepLinearNetwork
from dmf.models.offsets import Offsets

FORMAT = "dmf-model"
FORMAT_VERSION = 1
HELDOUT_ERROR = ("heldout_rmse", "heldout_standard_error", "n_heldout")  # options that come together
QUANTILES = "residual_quantiles"  # option: what intervals follow from
_LARGEST = sys.float_info.max


def write_model(
    path: str | os.PathLike,
    network: DeepLinearNetwork,
    history: Mapping[str, np.ndarray],
    status: tuple[str, str],
    *,
    offsets: Offsets | None,
    options: Mapping[str, Any],
    row_ids: Sequence[str] | None,
    col_ids: Sequence[str] | None,
    bounds: tuple[float, float] | None,
) -> None:
    """Write the fields of a recovery to one file.

    Parameters
    ----------
    path : path
    network : DeepLinearNetwork
    history : mapping of column names to arrays, all with one first dimension
    status : (reason, advice)
    offsets : Offsets or None
    options : mapping
        What JSON cannot hold is written as the nearest that it can: NaN and infinities as null, objects as text.
    row_ids, col_ids : sequences of str, or None
    bounds : (float, float) or None

    Raises
    ------
    ArgumentError
        If `path` names no file.
    FileError
        If it cannot be written; a file that was there before is then untouched.
    """
    check_path(path)
    arrays = {f"weights_{k}": to_host(w) for k, w in enumerate(network.weights, start=1)}
    arrays |= {f"history_{name}": column for name, column in history.items()}
    if offsets is not None:
        arrays |= {"offsets_row": to_host(offsets.row), "offsets_col": to_host(offsets.col)}
    for name, ids in (("row_ids", row_ids), ("col_ids", col_ids)):
        if ids is not None:
            arrays[name] = np.frombuffer(json.dumps(ids).encode(), np.uint8)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dmf_version": version("dmf"),
        "dtype": str(to_host(network.weights[0]).dtype),
        "shapes": [list(w.shape) for w in network.weights],
        "mean": None if offsets is None else offsets.mean,
        "status": {"reason": status[0], "advice": status[1]},
        "history": list(history),
        "options": jsonable(options),
        "bounds": jsonable(bounds),
    }
    write_archive(path, header, arrays)


def read_model(path: str | os.PathLike, reasons: Collection[str]) -> dict[str, Any]:
    """Read the fields that `write_model` wrote, by the names of its arguments.

    Nothing in the file is trusted: no pickle, and every field is checked for presence, type, shape and finite numbers.

    Parameters
    ----------
    path : path
    reasons : collection of str
        The reasons that a status may give.

    Raises
    ------
    ArgumentError
        If `path` names no file.
    FileError
        If the file cannot be read, is truncated, or is not a valid model.
    """
    check_path(path)
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
        if not abs(mean) <= _LARGEST:  # NaN, infinite, or an integer beyond any float
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
    if status.get("reason") not in reasons or not isinstance(status.get("advice"), str):
        raise fail(f"the header entry 'status' is {status!r}")
    return {
        "network": network,
        "history": columns,
        "status": (status["reason"], status["advice"]),
        "offsets": offsets,
        "options": _read_options(entry("options", dict), fail),
        "row_ids": _read_ids(arrays, "row_ids", network.shape[0], fail),
        "col_ids": _read_ids(arrays, "col_ids", network.shape[1], fail),
        "bounds": _read_bounds(header.get("bounds"), fail),
    }


def _read_options(options, fail):
    """Checks what `dmf` itself reads of the options; a null is a number that was not finite when it was written."""
    rmse, error, count = HELDOUT_ERROR
    checks = {
        "rank": _is_count, count: _is_count, rmse: _is_size, error: _is_size, "noise": _is_size,
        QUANTILES: lambda value: isinstance(value, list) and all(map(_is_size, value)),
    }  # fmt: skip
    for name, good in checks.items():
        if name in options and not good(options[name]):
            raise fail(f"the option {name!r} is {_short(options[name])}")
    given = [name for name in HELDOUT_ERROR if name in options]
    if given and len(given) < len(HELDOUT_ERROR):
        missing = next(name for name in HELDOUT_ERROR if name not in options)
        raise fail(f"the option {missing!r} is missing beside {given[0]!r}")
    return options


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_size(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= _LARGEST)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _read_bounds(bounds, fail):
    """(low, high), of which null is an infinite one."""
    if bounds is None:
        return None
    good = isinstance(bounds, list) and len(bounds) == 2
    try:
        ends = (-math.inf, math.inf)
        return check_bounds([end if n is None else n for n, end in zip(bounds, ends, strict=True)] if good else bounds)
    except ArgumentError as error:
        raise fail(f"the header entry 'bounds' is {bounds!r}") from error


def _read_ids(arrays, name, size, fail):
    if name not in arrays:
        return None
    if arrays[name].dtype != np.uint8:
        raise fail(f"the array {name!r} has dtype {arrays[name].dtype}")
    try:
        ids = json.loads(arrays[name].tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise fail(f"{name} are not JSON") from error
    if not isinstance(ids, list) or not are_names(ids, size):
        raise fail(f"{name} are not {size} different strings")
    return tuple(ids)


def are_names(ids: Sequence[Any], size: int) -> bool:
    """Whether `ids` are `size` different strings."""
    return all(isinstance(i, str) for i in ids) and len(ids) == len(set(ids)) == size
