"""Predictions and rankings that workers of a Dask cluster write, as a folder of Parquet files: what is too much for one process.

Workers write the files themselves, so all of them see the folder under the same name. It appears when all files are there.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.checks import positive_integer
from dmf.arrays.threads import threads
from dmf.errors import FileError, ObservationError, ShapeError
from dmf.io.partitions import read_group, row_groups
from dmf.observations import DistributedEntries, SampledEntries
from dmf.observations.workers import check_versions, gathered, scattered
from dmf.recovery.intervals import half_width
from dmf.recovery.names import positions_of
from dmf.recovery.ranking import top_columns
from dmf.recovery.results import Recovery

_AT_ONCE = 2**30  # predictions that a task ranks: some seconds


def predict_partitions(
    recovery: Recovery,
    pairs: str | os.PathLike,
    row: str,
    column: str,
    output: str | os.PathLike,
    client: Any,
    *,
    coverage: float | None = None,
) -> tuple[int, int]:
    """Predict the pairs in Parquet files, one file for each row group of theirs.

    Parameters
    ----------
    recovery : Recovery
    pairs : path
        A Parquet file, or a folder of them.
    row, column : str
        Names of the columns that hold the ids.
    output : path
        Folder to make, or an empty one. Its files have the columns row, column and prediction, as csv of predictions.
    client : distributed.Client
    coverage : float, optional
        Add columns low and high, which hold this share of new entries; empty where row or column were not in the data.

    Returns
    -------
    predictions, unknown : int
        How many were written, and of how many pairs row or column were not in the data.

    Raises
    ------
    FileError
        If a file cannot be read or lacks a column, or `output` holds something or cannot be written.
    BackendError
        If a worker has other versions than the client, or too many are lost.
    """
    groups = row_groups(pairs, (row, column))
    check_versions(client)
    half = None if coverage is None else half_width(recovery, coverage)
    with _folder(output) as folder:
        files = [folder / f"part-{k:06d}.parquet" for k in range(len(groups))]
        arguments = [(group, (row, column), file, half) for group, file in zip(groups, files, strict=True)]
        counts = _on_workers(client, _predict_group, _light(recovery), arguments)
    written, unknown = np.sum(counts, axis=0, dtype=int) if counts else (0, 0)
    return int(written), int(unknown)


def top_partitions(
    recovery: Recovery,
    count: int,
    output: str | os.PathLike,
    client: Any,
    *,
    seen: DistributedEntries | None = None,
) -> int:
    """Write the best columns of each row, in the order of `dmf.recovery.ranking.top_columns`.

    Parameters
    ----------
    recovery : Recovery
    count : int, >= 1
        Most columns for each row.
    output : path
        Folder to make, or an empty one. Its files have the columns row, column and prediction.
    client : distributed.Client
    seen : DistributedEntries, optional
        Entries that are left out, such as ``recovery.observations``: of the same rows and columns, or of others with names.

    Returns
    -------
    int
        Number of predictions written.

    Raises
    ------
    ArgumentError, ShapeError
        If `count` is below 1, or `seen` is of another shape and without names.
    FileError, BackendError
        See `predict_partitions`.
    """
    count = positive_integer(count, "count")
    check_versions(client)
    d1, d2 = recovery.shape
    places = None if seen is None else _places(recovery, seen)
    with _folder(output) as folder:
        ranked = _Ranking(_light(recovery), count, folder, places)
        counts, rest = [], np.arange(d1)
        if seen is not None:
            counts, rest = seen.for_rows(_top_of_block, ranked), np.setdiff1d(rest, ranked.places[0])
        size = max(1, _AT_ONCE // d2)
        parts = [(rest[begin : begin + size], begin) for begin in range(0, rest.size, size)]
        counts += _on_workers(client, _top_of_rows, ranked, parts)
    return sum(counts)


class _Ranking:
    """What tasks that rank rows need: model, number of columns, folder, and places of seen rows and columns in the model."""

    def __init__(self, recovery: Recovery, count: int, folder: Path, places: Any) -> None:
        self.recovery, self.count, self.folder, self.places = recovery, count, folder, places

    def write(self, name: str, rows: np.ndarray, seen: SampledEntries | None = None) -> int:
        """Rank some rows, and write a file."""
        recovery = self.recovery
        index, columns, values = top_columns(recovery, rows, self.count, seen)
        ids = _names(recovery.row_ids, index), _names(recovery.col_ids, columns)
        _write(self.folder / f"{name}.parquet", {"row": ids[0], "column": ids[1], "prediction": values})
        return values.size


def _top_of_rows(ranked: _Ranking, rows: np.ndarray, begin: int) -> int:
    return ranked.write(f"part-{begin:09d}", rows)


def _top_of_block(begin: int, end: int, rows: np.ndarray, cols: np.ndarray, ranked: _Ranking) -> int:
    row_places, col_places = ranked.places
    rows, cols = row_places[rows], col_places[cols]
    both = (rows >= 0) & (cols >= 0)
    values = np.ones(np.count_nonzero(both))
    seen = SampledEntries(rows[both], cols[both], values, ranked.recovery.shape) if values.size else None
    wanted = row_places[begin:end]
    return ranked.write(f"seen-{begin:09d}", wanted[wanted >= 0], seen)


def _places(recovery: Recovery, seen: DistributedEntries) -> list[np.ndarray]:
    """Positions in the model of the rows and of the columns of other entries, -1 for unknown ones."""
    form, both = seen.form, (recovery.row_ids, recovery.col_ids)
    ids = (None, None) if form is None else (form.row_ids, form.col_ids)
    if ids == both and seen.shape == recovery.shape:
        return [np.arange(size) for size in seen.shape]
    if ids[0] is None or ids[1] is None:
        raise ShapeError(
            f"seen has the shape {seen.shape} and no names, but the model {recovery.shape}. Pass entries of the same matrix.",
            argument="seen",
            value=seen.shape,
            limit=recovery.shape,
        )
    return [positions_of(mine or (), known, size) for mine, known, size in zip(ids, both, recovery.shape, strict=True)]


def _predict_group(
    recovery: Recovery, group: tuple[str, int, int], names: tuple[str, str], file: Path, half: float | None
) -> tuple[int, int]:
    import pandas as pd

    frame, places = read_group(group, names), []
    for name, known, size in zip(names, (recovery.row_ids, recovery.col_ids), recovery.shape, strict=True):
        codes, ids = pd.factorize(frame[name])
        if codes.size and codes.min() < 0:
            raise ObservationError(
                f"{group[0]}: column {name!r} has no id in row {int(codes.argmin())} (from 0) of row group {group[1]}, but each "
                "pair has one. Give it, or leave the pair out.",
                argument="pairs",
            )
        places.append(positions_of(list(ids), known, size)[codes])
    values, seen = recovery.predict_at(*places)
    columns = {"row": frame[names[0]], "column": frame[names[1]], "prediction": values}
    if half is not None:
        ends = recovery.bounded(values - half), recovery.bounded(values + half)
        columns |= {name: np.where(seen, end, np.nan) for name, end in zip(("low", "high"), ends, strict=True)}
    _write(file, columns)
    return values.size, int(np.count_nonzero(~seen))


def _write(file: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        parquet.write_table(pa.table(columns), file)
    except OSError as error:
        raise FileError(f"{file}: a worker cannot write there: {error}. Name a folder that all workers see.") from error


def _names(ids: Sequence[str] | None, index: np.ndarray) -> Any:
    return index if ids is None else np.asarray(ids, dtype=object)[index]


def _light(recovery: Recovery) -> Recovery:
    """What predictions need of a recovery, on the host."""
    return replace(recovery, observations=None, heldout=None, runs=()).to_device("cpu")


def _on_workers(
    client: Any, function: Callable[..., Any], shared: Any, arguments: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """Results of a function of what all tasks share and of arguments of their own."""

    def submit() -> list[Any]:
        there = scattered(client, [shared])[0]
        return [client.submit(_on_one_thread, function, there, *each, pure=False) for each in arguments]

    return gathered(client, submit) if arguments else []


def _on_one_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    with threads(1):
        return function(*arguments)


@contextmanager
def _folder(output: str | os.PathLike) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when all went well, and is removed otherwise."""
    target = Path(output).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileError(f"{output}: there is something already. Name a folder that does not exist, or an empty one.")
    made = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        made.mkdir()
    except OSError as error:
        raise FileError(f"{output}: cannot be written: {error}. Name another folder.") from error
    try:
        yield made
        if target.exists():
            target.rmdir()
        made.rename(target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
