"""How entries get to the workers of a cluster: sent from here, or read there from files or a data frame."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from dmf.arrays.checks import check_kind, check_option
from dmf.errors import ArgumentError
from dmf.io.forms import Form
from dmf.io.partitions import Names, check_columns, ids_of, merged, pieces, row_groups, texts
from dmf.observations.block import local_folder
from dmf.observations.checks import nothing_left
from dmf.observations.cluster import Blocks, Layout, Root, built, check_versions, joined
from dmf.observations.sampled import SampledEntries
from dmf.observations.stored import Stored, stored

_BLOCK = 6_000_000  # samples, about: 72 MB in single precision
_FEWEST = 4  # blocks on each side, for some workers and threads; each costs a task and a copy of the factor it meets
_MERGED = 16  # lists of ids at a time


def sent(entries: SampledEntries, client: Any, blocks: int | None) -> Blocks:
    """Blocks of entries that lie here, and stay here to be sent again; see `DistributedEntries.from_entries`."""
    check_kind("entries", entries, SampledEntries, "Pass SampledEntries.")
    check_versions(client)
    here: Any = entries.to_device("cpu")
    sides = here, SampledEntries(here.cols, here.rows, here.entries, here.shape[::-1], here.weights)
    count = _block_count(here.n_measurements, blocks)
    starts = [np.concatenate([[0], np.cumsum(side.counts(0))]) for side in sides]
    bounds = _cuts(starts[0], count), _cuts(starts[1], count)

    def samples(side: int, k: int) -> tuple[Any, ...]:
        begin, end = bounds[side][k : k + 2]
        part, data = slice(starts[side][begin], starts[side][end]), sides[side]
        weights = None if data.weights is None else data.weights[part]
        arrays = data.rows[part], data.cols[part], data.entries[part], weights
        return *arrays, (int(begin), int(end)), bounds[1 - side]

    def make(lost: list[Any]) -> list[Any]:
        futures = []
        for side, k, place in lost:  # one after another: many at once have been seen to hang
            data = client.scatter([samples(side, k)], workers=place["workers"], direct=True, hash=False)
            futures.append(client.submit(built, *data, **place))
        return futures

    layout = Layout(client, bounds, here.dtype, here.weights is not None)
    return Blocks(layout, Root(client, [b.size - 1 for b in bounds], make))


def read_from_parquet(path: Any, names: Names, client: Any, blocks: int | None) -> tuple[Blocks, Form]:
    """Blocks of entries in Parquet files, and their ids; see `DistributedEntries.from_parquet`."""
    groups = row_groups(path, names)
    check_versions(client)

    return _of_partitions(lambda: groups, names, client, blocks)


def read_from_dask(frame: Any, names: Names, client: Any, blocks: int | None) -> tuple[Blocks, Form]:
    """Blocks of entries of a data frame, and their ids; see `DistributedEntries.from_dask`."""
    if not hasattr(frame, "to_delayed") or not hasattr(frame, "columns"):
        raise ArgumentError(
            f"frame is a {type(frame).__name__}, but a Dask data frame is needed. For others see from_entries.",
            argument="frame",
            value=type(frame).__name__,
        )
    check_columns(list(frame.columns), names)
    check_versions(client)
    parts = frame[list(names)].to_delayed()
    return _of_partitions(lambda: client.compute(list(parts)), names, client, blocks)


def _of_partitions(read: Callable[[], list[Any]], names: Names, client: Any, blocks: int | None) -> tuple[Blocks, Form]:
    """Ids first, then samples: each partition is read twice."""
    parts = [client.submit(ids_of, part, names, pure=False) for part in read()]
    if not parts:
        raise nothing_left(0, 0)
    while len(parts) > 1:
        some = [parts[k : k + _MERGED] for k in range(0, len(parts), _MERGED)]
        parts = [client.submit(merged, part, pure=False) for part in some]
    ids = parts[0]
    rows, cols, dtype = client.gather(ids)
    total = int(rows.counts.sum())
    if total == 0:
        raise nothing_left(len(rows.ids), len(cols.ids))
    count = _block_count(total, blocks)
    starts = [np.concatenate([[0], np.cumsum(side.counts)]) for side in (rows, cols)]
    bounds = _cuts(starts[0], count), _cuts(starts[1], count)

    def make(lost: list[Any]) -> list[Any]:
        homes = {str(place): place for _, _, place in lost}
        numbers: dict[str, list[int]] = {home: [] for home in homes}
        for side, k, place in lost:
            numbers[str(place)].append(k + side * (bounds[0].size - 1))
        shares = list(numbers.values())
        found = [client.submit(cut, part, names, ids, bounds, shares, pure=False) for part in read()]
        there = {
            home: [
                client.submit(kept, client.submit(operator.getitem, part, h, pure=False), **homes[home]) for part in found
            ]
            for h, home in enumerate(homes)
        }
        futures = []
        for side, k, place in lost:
            home, own = str(place), (int(bounds[side][k]), int(bounds[side][k + 1]))
            at = numbers[home].index(k + side * (bounds[0].size - 1))
            futures.append(client.submit(joined, there[home], at, own, bounds[1 - side], **place))
        return futures

    layout = Layout(client, bounds, dtype, weighted=False)
    made = Blocks(layout, Root(client, [b.size - 1 for b in bounds], make))
    return made, Form(texts(rows.ids), texts(cols.ids))


def cut(partition: Any, names: Names, ids: Any, bounds: Any, shares: list[list[int]]) -> list[Stored]:
    """Of the pieces of a partition the shares of some workers, on the disk of this one."""
    found = pieces(partition, names, ids, bounds)
    return stored([[found[k] for k in share] for share in shares], local_folder())


def kept(share: Any) -> Stored:
    """A share, on the disk of the worker that has it now."""
    return share if isinstance(share, Stored) else stored([share], local_folder())[0]


def _block_count(samples: int, blocks: int | None) -> int:
    """Number of blocks of rows, and of columns."""
    count = max(_FEWEST, -(-samples // _BLOCK)) if blocks is None else blocks
    return int(check_option("blocks", count, 1, whole=True))


def _cuts(starts: np.ndarray, blocks: int) -> np.ndarray:
    """Cut rows, whose samples begin at `starts`, into at most so many runs with about equal numbers of samples."""
    inner = np.searchsorted(starts, np.linspace(0, starts[-1], blocks + 1)[1:-1])
    return np.unique(np.concatenate([[0], inner, [starts.size - 1]]))
