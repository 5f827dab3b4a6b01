"""Model files: the fields of a `Recovery` written to npz with a JSON header, and read back with suspicion."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np

from dmf.arrays.backend import to_host
from dmf.arrays.checks import check_bounds, check_path
from dmf.errors import ArgumentError, FileError
from dmf.io.archive import MATRIX_MODEL, check_format, read_archive, write_archive
from dmf.io.arrays import most_bytes
from dmf.io.writing import jsonable
from dmf.models import LowRank
from dmf.models.drift import Drift, Path
from dmf.models.offsets import Offsets
from dmf.recovery.codec import COMPRESSED, compressed, expanded
from dmf.recovery.priors import Prior, read_feature_records
from dmf.recovery.values import Found, HeldOut, Outliers, Plan, RankingMeasures, StageRun, Weighting
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History

FORMAT_VERSION = 4
_LARGEST = sys.float_info.max


def write_model(path: str | os.PathLike, recovery: Mapping[str, Any], precision: str = "full") -> None:
    """Write a recovery to one file.

    Parameters
    ----------
    path : path
    recovery : mapping
        The fields of a `Recovery` by name; the observations and the held-out residuals are left out.
    precision : {"full", "posterior"}
        See `Recovery.save`.

    Raises
    ------
    ArgumentError
        If `path` names no file.
    FileError
        If it cannot be written; a file that was there before is then untouched.
    """
    check_path(path)
    model, heldout = recovery["model"], recovery["heldout"]
    arrays = {name: to_host(getattr(model, name)) for name in ("u", "s", "vt")}
    arrays |= {f"history_{name}": column for name, column in recovery["history"].items()}
    if model.offsets is not None:
        arrays |= {"offsets_row": to_host(model.offsets.row), "offsets_col": to_host(model.offsets.col)}
    for name in ("row_ids", "col_ids"):
        if recovery[name] is not None:
            arrays[name] = np.frombuffer(json.dumps(recovery[name]).encode(), np.uint8)
    arrays |= {name: p.array() for name, p in zip(_PRIORS, recovery["priors"], strict=True) if p is not None}
    drift, outliers = recovery["drift"], recovery["outliers"]
    paths = {} if drift is None else {name: path for name, path in vars(drift).items() if path is not None}
    arrays |= {f"drift_{name}_{part}": array for name, path in paths.items() for part, array in path.arrays().items()}
    if outliers is not None:
        arrays |= {f"outliers_{name}": getattr(outliers, name) for name in ("rows", "cols", "values")}
    header = {
        "format": MATRIX_MODEL,
        "format_version": FORMAT_VERSION,
        "dmf_version": version("dmf"),
        "mean": None if model.offsets is None else model.offsets.mean,
        "outcome": recovery["outcome"].name,
        "found": asdict(recovery["found"]),
        "settings": asdict(recovery["settings"]),
        "heldout": None if heldout is None else {n: getattr(heldout, n) for n in _HELD_OUT},
        "runs": [asdict(run) | {"outcome": run.outcome.name} for run in recovery["runs"]],
        **{name: None if recovery[name] is None else asdict(recovery[name]) for name in _OF_FEEDBACK},
        **{name: p and [asdict(f) for f in p.features] for name, p in zip(_PRIORS, recovery["priors"], strict=True)},
        "drift": list(paths),
        "history": list(recovery["history"]),
        "ids": [name for name in ("row_ids", "col_ids") if name in arrays],
        "outliers": None if outliers is None else len(outliers),
    }
    header = jsonable(header)
    if precision == "posterior":
        if recovery["priors"] != (None, None):
            raise ArgumentError(
                'precision="posterior", but the recovery has features, whose coefficients belong to its factors as they are. '
                "Leave precision out.",
                argument="precision",
                value="posterior",
            )
        header, arrays = compressed(model, recovery["observations"], recovery["found"].noise, header, arrays)
    write_archive(path, header, arrays)


def read_model(path: str | os.PathLike) -> dict[str, Any]:
    """Read the fields of a `Recovery` that `write_model` wrote.

    Nothing in the file is trusted: no pickle, and every field is checked for presence, type, shape and finite numbers.

    Parameters
    ----------
    path : path

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

    if header.get("format") == COMPRESSED:
        header, arrays = expanded(header, arrays, most_bytes(path), fail)
    check_format(path, header, MATRIX_MODEL, FORMAT_VERSION)
    u, s, vt = take("u", (None, None)), take("s", (None,)), take("vt", (None, None))
    if not (s.size == u.shape[1] == vt.shape[0] > 0 and min(u.shape[0], vt.shape[1]) > 0):
        raise fail(f"u, s and vt have shapes {u.shape}, {s.shape} and {vt.shape}, which do not fit together")
    if not u.dtype == s.dtype == vt.dtype or s.dtype not in (np.float32, np.float64):
        raise fail(f"u, s and vt have dtypes {u.dtype}, {s.dtype} and {vt.dtype}")
    if not all(np.isfinite(array).all() for array in (u, s, vt)) or (s < 0).any():
        raise fail("u, s and vt hold numbers that are not finite, or negative singular values")
    if (s[1:] > s[:-1]).any():
        raise fail("the singular values s do not descend")
    shape, offsets = (u.shape[0], vt.shape[1]), None
    if header.get("mean") is not None:
        row, col = take("offsets_row", (shape[0],)), take("offsets_col", (shape[1],))
        mean = entry("mean", int, float)
        if not abs(mean) <= _LARGEST:  # NaN, infinite, or an integer beyond any float
            raise fail("the header entry 'mean' is not a finite number")
        offsets = Offsets(float(mean), row, col)
        if not (np.isfinite(row).all() and np.isfinite(col).all() and row.dtype == col.dtype == s.dtype):
            raise fail("offsets are not finite or not of the dtype of the singular values")
    names = entry("history", list)
    if not {"iteration", "loss", "seconds"} <= set(map(str, names)):
        raise fail("the history lacks iteration, loss or seconds")
    iteration = take("history_iteration", (None,), "iu")
    length = iteration.size
    if length == 0 or not all(np.isfinite(take(f"history_{name}", (length,))).all() for name in ("loss", "seconds")):
        raise fail("the history is empty, or holds a loss or time that is not finite")
    if iteration[0] < 0 or (iteration[1:] < iteration[:-1]).any():
        raise fail("the iterations of the history do not ascend from 0")
    columns = {}
    for name in map(str, names):
        column = arrays.get(f"history_{name}")
        if column is None or column.shape[:1] != (length,):
            raise fail(f"the history column {name!r} is missing or not of length {length}")
        columns[name] = take(f"history_{name}", (length,), "iuf") if name in _NUMBERS else column
    record, heldout, named = _Record(fail), header.get("heldout"), entry("ids", list)
    found = record.of(Found, "found", entry("found", dict))
    if any(index and index[-1] >= size for index, size in zip(found.undetermined, shape, strict=True)):
        raise fail(f"the header entry 'found' names undetermined rows or columns outside of the {shape} matrix")
    if found.offsets != (offsets is not None):
        raise fail("the header entry 'found' does not agree with the arrays on offsets")
    if found.clipped is not None and not found.noise > 0:
        raise fail("the header entry 'found' has clipped values, but no noise")
    if found.rank > s.size:
        raise fail(f"the header entry 'found' has rank {found.rank}, but there are {s.size} singular values")
    settings = record.of(Plan, "settings", entry("settings", dict))
    if settings.rank is not None and settings.rank > min(shape):
        raise fail(f"the header entry 'settings' has rank {settings.rank}, but the matrix is {shape[0]} x {shape[1]}")
    heldout = None if heldout is None else record.of(HeldOut, "heldout", heldout)
    if heldout is not None and len(heldout.quantiles) > heldout.count:
        raise fail(f"the header entry 'heldout' has {len(heldout.quantiles)} quantiles of {heldout.count} residuals")
    feedback = {
        name: None if header.get(name) is None else record.of(cls, name, header[name])
        for name, cls in _OF_FEEDBACK.items()
    }
    runs = tuple(record.of(StageRun, "runs", run) for run in entry("runs", list))
    if runs and "run" in columns and not np.array_equal(np.unique(columns["run"]), np.arange(len(runs))):
        raise fail(f"the history column 'run' does not number the {len(runs)} runs")
    priors: list[Prior | None] = [None, None]
    for side, name in enumerate(_PRIORS):
        if header.get(name) is not None:
            try:
                features = read_feature_records(header[name])
            except (KeyError, TypeError, ValueError) as error:
                raise fail(f"the features of {name!r} are {_short(header[name])} ({error})") from error
            width = s.size + (offsets is not None)
            numbers = take(name, (2 + sum(len(feature.centre) for feature in features), width))
            if numbers.dtype != s.dtype or not np.isfinite(numbers).all() or (numbers[-1] < 0).any():
                raise fail(f"the array {name!r} is not finite, or not of the dtype of the singular values")
            priors[side] = Prior(numbers[:-1], numbers[-1], features)
    outliers = None
    if header.get("outliers") is not None:
        count = (entry("outliers", int),)
        places = [take(f"outliers_{name}", count, "i") for name in ("rows", "cols")]
        values = take("outliers_values", count)
        outside = (
            index.size and not 0 <= index.min() <= index.max() < d for index, d in zip(places, shape, strict=True)
        )
        if any(outside) or not np.isfinite(values).all():
            raise fail("the outliers are not finite or outside of the matrix")
        outliers = Outliers(places[0], places[1], values)
    return {
        "model": LowRank(u, s, vt, offsets),
        "found": found,
        "outcome": record.outcome(header.get("outcome")),
        "history": History(columns),
        "settings": settings,
        "heldout": heldout,
        "runs": runs,
        "row_ids": _read_ids(arrays, "row_ids", shape[0], fail) if "row_ids" in named else None,
        "col_ids": _read_ids(arrays, "col_ids", shape[1], fail) if "col_ids" in named else None,
        **feedback,
        "outliers": outliers,
        "priors": tuple(priors),
        "drift": _read_drift(entry("drift", list), shape, take, fail),
    }


class _Record:
    """Reads the dataclasses of a header, each field by the check of its name."""

    def __init__(self, fail: Callable[[str], FileError]) -> None:
        self._fail = fail

    def of(self, cls: Any, name: str, entry: Any) -> Any:
        """An object of `cls` from the header entry `name`."""
        if not isinstance(entry, dict):
            raise self._fail(f"the header entry {name!r} is {_short(entry)}")
        values = {}
        for field in fields(cls):
            if field.name in _NOT_SAVED:
                continue
            value = entry.get(field.name)
            missing = value is None and field.name == "rank" and cls is not Plan
            if field.name not in entry or missing or not _CHECKS[field.name](value):
                raise self._fail(f"{field.name!r} of the header entry {name!r} is {_short(value)}")
            values[field.name] = self._converted(field.name, value)
        return cls(**values)

    def outcome(self, name: Any) -> Outcome:
        """The member of this name."""
        if not (isinstance(name, str) and name in Outcome.__members__):
            raise self._fail(f"the outcome is {_short(name)}")
        return Outcome[name]

    def _converted(self, name: str, value: Any) -> Any:
        if name == "outcome":
            return self.outcome(value)
        if name in ("bounds", "clipped") and value is not None:
            return tuple(end if n is None else float(n) for n, end in zip(value, _NO_BOUNDS, strict=True))
        if isinstance(value, list):
            return tuple(tuple(v) if isinstance(v, list) else v for v in value)
        return math.nan if value is None and name in _SIZES else value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_positions(value: Any) -> bool:
    """Whether they are ascending numbers from 0."""
    return isinstance(value, list) and all(map(_is_count, value)) and all(a < b for a, b in pairwise(value))


def _is_size(value: Any) -> bool:
    """Whether it is a number from 0; null stands for one that was not finite when it was written."""
    return value is None or _is_finite_size(value)


def _is_finite_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _are_quantiles(value: Any) -> bool:
    """Whether they are sizes in ascending order, of which intervals are made."""
    sizes = isinstance(value, list) and bool(value) and all(map(_is_finite_size, value))
    return sizes and all(a <= b for a, b in pairwise(value))


def _are_bounds(value: Any) -> bool:
    """Whether it is (low, high), of which null is an infinite one, or nothing."""
    if value is None:
        return True
    try:
        check_bounds([end if n is None else n for n, end in zip(value, _NO_BOUNDS, strict=True)])
    except (ArgumentError, TypeError, ValueError):
        return False
    return True


_ERRORS = ("ndcg_error", "recall_error", "average_precision_error")  # of a single row not known
_SIZES = ("noise", "relative_residual", "oversampling", "rmse", "standard_error", "seconds", *_ERRORS)
_SHARES = ("ndcg", "recall", "average_precision", "coverage")
_NUMBERS = ("noise", "rank", "run")  # columns of the history that hold a number for each record
_NOT_SAVED = ("residuals",)
_HELD_OUT = ("rmse", "standard_error", "count", "quantiles")
_OF_FEEDBACK = {"weighting": Weighting, "ranking": RankingMeasures}
_PRIORS = ("row_prior", "column_prior")
_SIDES = ("rows", "columns")  # of drift
_NO_BOUNDS = (-math.inf, math.inf)
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_SIZES, _is_size),
    **dict.fromkeys((*_SHARES, "power"), lambda value: _is_finite_size(value) and value <= 1),
    **dict.fromkeys(("confidence", "ridge"), lambda value: _is_finite_size(value) and value > 0),
    **dict.fromkeys(("count", "iterations", "seed", "nit", "n_rows"), _is_count),
    **dict.fromkeys(("stage", "fit", "solver", "message"), lambda value: isinstance(value, str)),
    "holdout": lambda value: _is_finite_size(value) and value < 1,
    "rank": lambda value: value is None or _is_count(value),
    **dict.fromkeys(("exact", "symmetric", "constant", "outliers"), lambda value: isinstance(value, bool)),
    "offsets": lambda value: isinstance(value, bool) or value == "auto",
    **dict.fromkeys(("bounds", "clipped"), _are_bounds),
    "outcome": lambda value: isinstance(value, str),
    "undetermined": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_are_positions, value)),
    "quantiles": _are_quantiles,
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _read_drift(sides: Any, shape: tuple[int, int], take: Callable[..., np.ndarray], fail: Any) -> Drift | None:
    paths: dict[str, Path | None] = dict.fromkeys(_SIDES)
    for name, size in zip(_SIDES, shape, strict=True):
        if name not in sides:
            continue
        times = take(f"drift_{name}_times", (None,))
        starts, counts = (
            take(f"drift_{name}_{part}", n, "i") for part, n in (("starts", (size + 1,)), ("counts", times.shape))
        )
        states, sizes = (
            take(f"drift_{name}_{part}", n) for part, n in (("states", (times.size, 2)), ("sizes", (2, 2)))
        )
        within = np.ones(max(times.size - 1, 0), bool)
        ordered = starts[0] == 0 and starts[-1] == times.size and (starts[1:] >= starts[:-1]).all()
        if ordered:
            within[starts[(starts > 0) & (starts < times.size)] - 1] = False
        rising = (times[1:] > times[:-1])[within].all() and (counts > 0).all() and (sizes > 0).all()
        if not (ordered and rising and all(np.isfinite(array).all() for array in (times, states, sizes))):
            raise fail(f"the drift of {name} is not finite, or its points are in no order")
        paths[name] = Path(starts, times, counts, states, sizes)
    return Drift(**paths) if any(paths.values()) else None


def _read_ids(arrays, name, size, fail):
    if name not in arrays:
        raise fail(f"the array {name!r} is missing")
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
