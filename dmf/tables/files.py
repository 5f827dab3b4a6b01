"""Files of table models: npz with a JSON header, read back with suspicion."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import numpy as np

from dmf.arrays.checks import check_path
from dmf.errors import ArgumentError, FileError
from dmf.io.archive import TABLE_MODEL, check_format, read_archive, write_archive
from dmf.tables.families import BY_NAME
from dmf.tables.kinds import KINDS, Column
from dmf.tables.margins import Margins
from dmf.tables.recovery import TableRecovery, Units
from dmf.tables.stack import Candidate, HeldOut, Member

FORMAT_VERSION = 1
_HELD_ARRAYS = ("rows", "columns", "truth", "predictions", "variances", "weights", "errors")
_UNIT_ARRAYS = ("groups", "center", "scale", "bounds")


def write_recovery(path: str | os.PathLike, recovery: TableRecovery) -> None:
    """Write all of a recovery but the table that was completed.

    Parameters
    ----------
    path : path
    recovery : TableRecovery

    Raises
    ------
    ArgumentError
        If `path` names no file, or a level or a name is neither number, text nor truth value.
    FileError
        If it cannot be written.
    """
    check_path(path)
    arrays = {f"units_{name}": getattr(recovery.units, name) for name in _UNIT_ARRAYS}
    arrays |= {f"held_{name}": getattr(recovery.held_out, name) for name in _HELD_ARRAYS}
    for k, member in enumerate(recovery.members):
        arrays |= {f"margins_{k}_{name}": array for name, array in member.margins.arrays().items()}
        arrays |= {f"model_{k}_{name}": array for name, array in member.model.arrays().items()}
    header = {
        "format": TABLE_MODEL,
        "format_version": FORMAT_VERSION,
        "dmf_version": version("dmf"),
        "seed": recovery.seed,
        "columns": [
            {"name": _plain(c.name), "kind": c.kind, "levels": [_plain(level) for level in c.levels]}
            for c in recovery.columns
        ],
        "candidates": [vars(candidate) for candidate in recovery.held_out.candidates],
        "members": [vars(member.candidate) | {"weight": member.weight} for member in recovery.members],
    }
    write_archive(path, header, arrays)


def _plain(value: Any) -> Any:
    """A name or level as JSON holds it."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (str, int, float)):
        raise ArgumentError(
            f"a column has the name or level {value!r}, but a file holds numbers, text and truth values. Rename it.",
            argument="columns",
            value=value,
            limit="numbers, text, truth values",
        )
    return value


def load(path: str | os.PathLike) -> TableRecovery:
    """Read a model that `TableRecovery.save` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    TableRecovery
        Without a table: pass the rows to `filled`, `intervals` and `predict_proba`.

    Raises
    ------
    FileError
        If the file is missing, damaged or something else.
    """
    check_path(path)
    header, arrays = read_archive(path)
    check_format(path, header, TABLE_MODEL, FORMAT_VERSION)
    try:
        recovery = _recovery(header, arrays)
        _check(recovery)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FileError(f"cannot read {path}: its parts do not fit ({error}). Pass a file that dmf wrote.") from error
    return recovery


def _recovery(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> TableRecovery:
    columns = tuple(Column(c["name"], c["kind"], tuple(c["levels"])) for c in header["columns"])
    units = Units(*(arrays[f"units_{name}"] for name in _UNIT_ARRAYS))
    candidates = tuple(Candidate(**fields) for fields in header["candidates"])
    held = {name: arrays[f"held_{name}"] for name in _HELD_ARRAYS}
    members = []
    for k, fields in enumerate(header["members"]):
        weight = fields.pop("weight")
        candidate = Candidate(**fields)
        margins, model = (
            {name.removeprefix(f"{part}_{k}_"): a for name, a in arrays.items() if name.startswith(f"{part}_{k}_")}
            for part in ("margins", "model")
        )
        fitted: Any = BY_NAME[candidate.family].kind
        members.append(Member(candidate, float(weight), Margins.from_arrays(margins), fitted.from_arrays(model)))
    held_out = HeldOut(candidates=candidates, **held)
    return TableRecovery(columns, units, tuple(members), held_out, int(header["seed"]))


def _check(recovery: TableRecovery) -> None:
    """Raise ValueError unless the shapes of all parts fit each other and numbers are finite."""
    units, held = recovery.units, recovery.held_out
    groups = np.repeat(np.arange(len(recovery.columns)), [column.width for column in recovery.columns])
    d = len(groups)
    if (
        not recovery.members
        or not np.array_equal(units.groups, groups)
        or any(c.kind not in KINDS for c in recovery.columns)
    ):
        raise ValueError("columns")
    shapes = {"center": (d,), "scale": (d,), "bounds": (2, d)}
    if any(getattr(units, name).shape != shape for name, shape in shapes.items()) or not np.all(units.scale > 0):
        raise ValueError("units")
    m, k = len(held.truth), len(held.candidates)
    lengths = {"rows": m, "columns": m, "predictions": m, "variances": m, "weights": k, "errors": k}
    if any(getattr(held, name).shape != (length,) for name, length in lengths.items()):
        raise ValueError("held-out cells")
    if m and not (held.columns.dtype.kind in "iu" and 0 <= held.columns.min() <= held.columns.max() < d):
        raise ValueError("held-out columns")
    probe = np.full((1, d), np.nan)
    for member in recovery.members:
        margins = member.margins
        if len(margins.values) != d or margins.low.shape != (d,) or margins.high.shape != (d,):
            raise ValueError("margins")
        if any(len(values) != len(scores) for values, scores in zip(margins.values, margins.scores, strict=True)):
            raise ValueError("margins")
        _check_model(member.model, d)
        if not np.isfinite(np.stack(member.expected(probe))).all():
            raise ValueError("a model predicts no finite numbers")


def _check_model(model: Any, d: int) -> None:
    arrays = model.arrays()
    if any(array.dtype != np.float64 or not np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a model holds no finite numbers")
    first = next(iter(arrays.values()))
    c = len(first)
    if "shares" in arrays:
        expected = {"shares": (c,), "means": (c, d), "covariances": (c, d, d)}
    else:
        w = first.shape[-1]
        expected = {"loadings": (d, w), "spread": (d, w, w), "noise": (d,)}
    if {name: array.shape for name, array in arrays.items()} != expected or c == 0:
        raise ValueError("arrays of a model")
