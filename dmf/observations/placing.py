"""How entries get to the workers of a cluster: sent from here, or read there from files, a data frame or an array."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from operator import getitem
from typing import Any

import numpy as np

from dmf.arrays.backend import floating
from dmf.arrays.checks import check_option
from dmf.errors import ArgumentError, ShapeError
from dmf.io.forms import Form
from dmf.io.partition_ids import Merged, appearances, merged, names_of, numbers_of, ordered
from dmf.io.partitions import (
    Names,
    check_columns,
    chunk_counts,
    chunk_entries,
    numbered_entries,
    partition_ids,
    row_groups,
)
from dmf.observations.block import local_folder
from dmf.observations.checks import check_shape, check_two_dimensions, nothing_left
from dmf.observations.cluster import Blocks, Layout, Root, built, joined
from dmf.observations.sampled import SampledEntries
from dmf.observations.stored import Stored, read, stored
from dmf.observations.workers import check_versions, finished, gathered, scattered

_BLOCK = 6_000_000  # samples, about, of a block and of what a task reads: 72 MB in single precision
_PARTITIONS = 8  # whose ids are put together in one task, about
_MOST_SHARES = 64  # of the ids: each share of each partition is a task
_AHEAD = 2  # blocks for each thread, whose pieces are on their way at a time
_FEWEST = 4  # blocks on each side, for some workers and threads; each costs a task and a copy of the factor it meets


def sent(entries: SampledEntries, client: Any, blocks: int | None) -> Blocks:
    """Blocks of entries that lie here, and stay here to be sent again; see `DistributedEntries.from_entries`."""
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
            data = scattered(client, [samples(side, k)], place["workers"])
            futures.append(client.submit(built, *data, **place))
        return futures

    layout = Layout(client, bounds, here.dtype, here.weights is not None)
    return Blocks(layout, Root(client, [b.size - 1 for b in bounds], make))


def read_from_parquet(path: Any, names: Names, client: Any, blocks: int | None) -> tuple[Blocks, Form]:
    """Blocks of entries in Parquet files, and their ids; see `DistributedEntries.from_parquet`."""
    groups = row_groups(path, names)
    check_versions(client)
    lengths = [length for *_, length in groups]
    tasks = max(-(-sum(lengths) // _BLOCK), 4 * sum(client.nthreads().values()))
    cuts = _cuts(np.concatenate([[0], np.cumsum(lengths)]), tasks)
    return _of_partitions([groups[a:b] for a, b in itertools.pairwise(cuts.tolist())], names, client, blocks)


def read_from_dask(frame: Any, names: Names, client: Any, blocks: int | None) -> tuple[Blocks, Form]:
    """Blocks of entries of a data frame, and their ids; see `DistributedEntries.from_dask`."""
    if not hasattr(frame, "to_delayed") or not hasattr(frame, "columns"):
        raise _not_of_dask("frame", frame, "data frame")
    check_columns(list(frame.columns), names)
    check_versions(client)
    return _of_partitions(frame[list(names)].to_delayed(), names, client, blocks)


def read_from_array(array: Any, client: Any, blocks: int | None) -> Blocks:
    """Blocks of the entries of a matrix in chunks; see `DistributedEntries.from_dask_array`."""
    if not hasattr(array, "to_delayed") or not hasattr(array, "chunks"):
        raise _not_of_dask("array", array, "array")
    check_two_dimensions(array)
    if np.isnan(array.shape).any():
        raise ShapeError(
            f"array has shape {array.shape}: Dask does not know how long its chunks are. Call its compute_chunk_sizes().",
            argument="array",
            value=array.shape,
        )
    check_versions(client)
    shape, dtype = check_shape(array.shape), floating(np.empty(0, array.dtype), "array").dtype
    begins = itertools.product(*(np.cumsum([0, *sizes[:-1]]).tolist() for sizes in array.chunks))
    chunks = list(zip(array.to_delayed().ravel(), begins, strict=True))
    counts = np.zeros(shape[0], np.int64), np.zeros(shape[1], np.int64)
    found = gathered(client, lambda: _computed(client, chunk_counts, chunks))
    for (_, first), seen in zip(chunks, found, strict=True):
        for count, begin, part in zip(counts, first, seen, strict=True):
            count[begin : begin + part.size] += part
    return _shuffled(client, counts, dtype, blocks, chunk_entries, [(*chunk, dtype) for chunk in chunks])


def _not_of_dask(argument: str, given: Any, kind: str) -> ArgumentError:
    return ArgumentError(
        f"{argument} is a {type(given).__name__}, but a Dask {kind} is needed. For others see from_entries.",
        argument=argument,
        value=type(given).__name__,
    )


def _of_partitions(parts: Sequence[Any], names: Names, client: Any, blocks: int | None) -> tuple[Blocks, Form]:
    """Ids first, then samples, which wait with the numbers of ids in their partition: 12 bytes each in single precision.

    Workers number the ids, each a part of them; see `dmf.io.partition_ids`. The client gets their counts and, as models hold
    them, their names: for 1e8 ids of 12 letters 7 GB, where factors of width 18 in single precision with their variances and
    the means of their priors take 22 GB.
    """
    if not parts:
        raise nothing_left(0, 0)

    def submit(function: Callable[..., Any], *arguments: Any) -> Any:
        return client.submit(function, *arguments, pure=False)

    shares = range(max(1, sum(client.nthreads().values()), min(len(parts) // _PARTITIONS, _MOST_SHARES)))
    found = _computed(client, learned, [(part, names, len(shares)) for part in parts])
    seen = [submit(put_together, [submit(getitem, each, k) for each in found]) for k in shares]
    order = submit(ordered, [submit(appearances, each) for each in seen])
    counts, *dtypes = gathered(
        client, lambda: [submit(getitem, order, 0), *(submit(getitem, each, -1) for each in found)]
    )
    entries = [submit(getitem, each, -2) for each in found]
    found.clear()  # the ids that they hold are in `seen`
    named = gathered(client, lambda: [submit(names_of, each, order, k) for k, each in enumerate(seen)])
    numbers = [submit(given_back, each, order, k) for k, each in enumerate(seen)]
    dtype = np.result_type(*dtypes)
    sources = [
        (each, dtype, *(submit(getitem, part, number) for part in numbers)) for number, each in enumerate(entries)
    ]
    made = _shuffled(client, counts, dtype, blocks, numbered_entries, sources)
    rows, cols = (_texts(part, count.size) for part, count in zip(zip(*named, strict=True), counts, strict=True))
    return made, Form(rows, cols)


def learned(partition: Any, names: Names, parts: int) -> list[Any]:
    """Ids of a partition by parts, its entries, all on this worker's disk, and the dtype of its values."""
    ids, entries = partition_ids(partition, names, parts)
    return [*stored(ids, local_folder()), *stored([entries], local_folder()), entries[2].dtype]


def put_together(pieces: Sequence[Any]) -> tuple[Merged, ...]:
    """One part of the ids of all partitions."""
    return merged([read(piece) for piece in pieces])


def given_back(part: tuple[Merged, ...], order: Any, k: int) -> list[Stored]:
    """Numbers of the ids of part `k` in each partition, on this worker's disk."""
    return stored(numbers_of(part, order, k), local_folder())


def _texts(parts: Sequence[tuple[np.ndarray, list[str]]], size: int) -> tuple[str, ...]:
    """Names in the order of their numbers."""
    names = np.empty(size, object)
    for numbers, some in parts:
        names[numbers] = some
    return tuple(names.tolist())


def _computed(client: Any, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Futures of a function of some arguments, in one graph with what these are of: Dask reads only what it works on.

    They are dealt out to the workers, in each call alike.
    """
    from dask import delayed

    made, workers = delayed(function, pure=False, traverse=False), sorted(client.nthreads())
    found: list[Any] = [None] * len(arguments)
    for first, worker in enumerate(workers or [None]):
        part = slice(first, None, len(workers) or 1)
        found[part] = client.compute(
            [made(*each) for each in arguments[part]],
            workers=worker and [worker],
            allow_other_workers=worker is not None,
        )
    return found


def _shuffled(
    client: Any,
    counts: tuple[np.ndarray, np.ndarray],
    dtype: Any,
    blocks: int | None,
    entries_of: Callable[..., Any],
    sources: Sequence[tuple[Any, ...]],
) -> Blocks:
    """Blocks of the entries that `entries_of` makes of each source, of which rows and columns have so many."""
    total = int(counts[0].sum())
    if total == 0:
        raise nothing_left(counts[0].size, counts[1].size)
    count = _block_count(total, blocks)
    starts = [np.concatenate([[0], np.cumsum(side)]) for side in counts]
    bounds = _cuts(starts[0], count), _cuts(starts[1], count)

    def make(lost: list[Any]) -> list[Any]:
        numbers = {k + side * (bounds[0].size - 1) for side, k, _ in lost}
        found = _computed(client, cut, [(bounds, numbers, entries_of, *source) for source in sources])
        workers, ahead = sorted(client.nthreads()), _AHEAD * sum(client.nthreads().values())
        futures: list[Any] = []
        for at, (side, k, place) in enumerate(lost):
            if at >= ahead:  # a worker that is ahead of the others would read pieces for all their blocks
                finished(client, [futures[at - ahead]])
            own = int(bounds[side][k]), int(bounds[side][k + 1])
            homes = itertools.cycle(workers)  # where the sources are cut, unless a worker is lost meanwhile
            of_block = [
                client.submit(piece_of, part, at, [home] == place["workers"], pure=False)
                for part, home in zip(found, homes, strict=False)
            ]
            futures.append(client.submit(joined, of_block, own, bounds[1 - side], **place))
        return futures

    return Blocks(Layout(client, bounds, dtype, weighted=False), Root(client, [b.size - 1 for b in bounds], make))


def cut(bounds: Any, numbers: set[int], entries_of: Callable[..., Any], *source: Any) -> list[Stored]:
    """Pieces of a source for some blocks; they wait on this worker's disk until all sources are cut."""
    entries = entries_of(*map(read, source))
    some = (piece for number, piece in enumerate(pieces(entries, bounds)) if number in numbers)
    return stored(some, local_folder())


def pieces(entries: tuple[np.ndarray, ...], bounds: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Entries by blocks: those of rows, then those of columns, each (own number, the other one, value)."""
    from dmf.kernels.sorting import move  # here: Numba's import takes half a second

    for side, inner in enumerate(bounds):
        own, other, values = entries[side], entries[1 - side], entries[2]
        block = np.repeat(np.arange(inner.size - 1, dtype=np.int32), np.diff(inner))[own]
        ends = np.cumsum(np.bincount(block, minlength=inner.size - 1))
        starts = np.concatenate([[0], ends[:-1]])
        sorted_by_block = [np.empty_like(array) for array in (own, other, values)]
        for index, moved in zip((own, other), sorted_by_block[:2], strict=True):
            move(block, starts.copy(), index, values, moved, sorted_by_block[2])
        yield from zip(*(np.split(array, ends[:-1]) for array in sorted_by_block), strict=True)


def piece_of(found: list[Any], at: int, stays: bool) -> Any:
    """One of the pieces: where it stays on this worker as it is, and otherwise in memory, of which Dask keeps account.

    By the size of what is in memory Dask decides how much it moves at a time.
    """
    return found[at] if stays else read(found[at])


def _block_count(samples: int, blocks: int | None) -> int:
    """Number of blocks of rows, and of columns."""
    count = max(_FEWEST, -(-samples // _BLOCK)) if blocks is None else blocks
    return int(check_option("blocks", count, 1, whole=True))


def _cuts(starts: np.ndarray, blocks: int) -> np.ndarray:
    """Cut rows, whose samples begin at `starts`, into at most so many runs with about equal numbers of samples."""
    inner = np.searchsorted(starts, np.linspace(0, starts[-1], blocks + 1)[1:-1])
    return np.unique(np.concatenate([[0], inner, [starts.size - 1]]))
