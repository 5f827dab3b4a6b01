"""Entries of a matrix on the workers of a Dask cluster.

Each worker holds blocks of neighbouring rows with all their samples, and blocks of neighbouring columns with all theirs. What is
fitted to one side is computed block by block, on one thread each: a block gets the parts of the other factor that it meets, and
returns its rows and some sums. Sums are added in the order of the blocks, which depend on the data alone: the bits are the same
on any number of workers. Factors, and whatever has a number for each row or column, live with the client. Of the entries no more
comes to the client than those that are held out; all of them come where somebody asks for it (`gathered`, `fill`).

Blocks of what workers read themselves lie in files on their disks, which are mapped into memory while a pass works on them: 24
bytes a sample in single precision. So do the samples as they were read, 12 bytes more, for blocks that are lost; and, until all
are placed, another 24. A worker's memory is then that of one block for each of its threads beside what Python needs, however many
samples there are: give it 2 GB. Entries that the client sends are held in memory, and moved to disk by Dask where that is short.

To Dask what lies in files seems small, so where workers read the data themselves, switch its work stealing off (the setting
distributed.scheduler.work-stealing of the scheduler; `dmf complete --cluster local` does so): it would move blocks that look
light. Nothing is gained by it, as tasks are where their blocks are.

Blocks are results of tasks, kept by futures; a sweep adds tasks that are forgotten when their results are fetched, so that no
graph grows. Where a worker is lost, Dask computes its blocks again, or, if these depend on what the client sent, the client
sends it again; the task is then repeated. Bytes of a sweep, and what the largest problems would cost: `dmf.observations.cluster`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from dmf.arrays.backend import check_device, to_host
from dmf.arrays.checks import check_kind
from dmf.arrays.linalg import truncated_svd
from dmf.arrays.threads import one_blas_thread
from dmf.io.forms import Form
from dmf.observations.base import Ridge
from dmf.observations.block import Facts
from dmf.observations.checks import check_factor, check_factors, check_rank, held_out_count, nothing_left
from dmf.observations.cluster import Blocks, Held, RemoteClipped
from dmf.observations.entries import Entries
from dmf.observations.placing import read_from_array, read_from_dask, read_from_parquet, sent
from dmf.observations.positions import components, numbered
from dmf.observations.sampled import SampledEntries
from dmf.observations.workers import scattered

_BITS = 12  # of the draws of a split, by which the last one held out is looked for


class RemoteValues:
    """Measurements that lie with the blocks; nothing can be done with them but to hand them back.

    Parameters
    ----------
    held : Held or None
        One for each sample, in the order of the blocks; None: the measurements of the blocks themselves.
    """

    __slots__ = ("held",)

    def __init__(self, held: Held | None = None) -> None:
        self.held = held


class DistributedEntries(Entries):
    """Entries of a matrix in blocks of rows and of columns on the workers of a Dask cluster; see the module.

    Made by `from_entries`, `from_parquet`, `from_dask` or `from_dask_array`. Whatever takes entries takes these:
    `dmf.complete`, `dmf.completion.rank_path`, the solvers.

    Parameters
    ----------
    blocks : Blocks
    form : Form, optional
        Names of rows and columns.
    """

    def __init__(self, blocks: Blocks, form: Form | None = None) -> None:
        self.blocks, self.form = blocks, form
        self.shape = int(blocks.layout.bounds[0][-1]), int(blocks.layout.bounds[1][-1])
        self.values = RemoteValues()

    @classmethod
    def from_entries(cls, entries: SampledEntries, client: Any, blocks: int | None = None) -> DistributedEntries:
        """Entries that lie here, in arrays of NumPy, sent to the workers; they stay here, too, to be sent again.

        Parameters
        ----------
        entries : SampledEntries
        client : distributed.Client
        blocks : int, >= 1, optional
            Of rows, and of columns. Unless given, as many as make 6,000,000 samples each, and at least 4. Workers can
            have as many threads at work; results depend on it in the last bits.

        Raises
        ------
        ArgumentError
            If `entries` are no SampledEntries, or `blocks` out of range.
        BackendError
            If a worker has another version of Python, NumPy or dmf.
        """
        check_kind("entries", entries, SampledEntries, "Pass SampledEntries.")
        return cls(sent(entries, client, blocks), entries.form)

    @classmethod
    def from_parquet(
        cls, path: Any, row: Any, column: Any, value: Any, client: Any, blocks: int | None = None
    ) -> DistributedEntries:
        """Entries in a Parquet file, or in all of a folder, which the workers read: all see it under the same name.

        Parameters
        ----------
        path : path
        row, column, value : str
            Names of the columns, as of `SampledEntries.from_frame`.
        client, blocks
            See `from_entries`.

        Raises
        ------
        FileError
            If a file cannot be read or lacks a column; the message names it.
        ObservationError
            If an id is missing, or a value is no finite number.
        """
        return cls(*read_from_parquet(path, (row, column, value), client, blocks))

    @classmethod
    def from_dask(
        cls, frame: Any, row: Any, column: Any, value: Any, client: Any, blocks: int | None = None
    ) -> DistributedEntries:
        """Entries of a long Dask data frame: one for each row that has a value.

        Parameters
        ----------
        frame : dask.dataframe.DataFrame
        row, column, value : names of columns
            As of `SampledEntries.from_frame`.
        client, blocks
            See `from_entries`.

        Raises
        ------
        ArgumentError, ObservationError
            If there are no such columns, an id is missing, or a value is no finite number.
        """
        return cls(*read_from_dask(frame, (row, column, value), client, blocks))

    @classmethod
    def from_dask_array(cls, array: Any, client: Any, blocks: int | None = None) -> DistributedEntries:
        """The entries of a Dask array that are not NaN; it is computed twice unless it is persisted.

        Parameters
        ----------
        array : dask.array.Array, shape (d1, d2)
            Of floats or integers; float32 and float64 are kept.
        client, blocks
            See `from_entries`.

        Raises
        ------
        ArgumentError, ShapeError, ObservationError
            If it is no such array, the sizes of its chunks are unknown, an entry is infinite, or all are NaN.
        """
        return cls(read_from_array(array, client, blocks))

    # The contract: sizes

    @property
    def like(self):
        return np.empty(0, self.blocks.layout.dtype)

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes of arrays "sent" and "received" by the client so far, without the samples themselves."""
        return dict(self.blocks.layout.traffic)

    @cached_property
    def facts(self) -> Facts:
        """Sums over all samples."""
        parts = self.blocks.results(0, "facts")
        sums: Any = [sum(column) for column in zip(*parts, strict=True)]
        return Facts(*sums)._replace(largest=max(part.largest for part in parts))

    @property
    def n_measurements(self):
        return self.facts.samples

    @property
    def n_distinct(self):
        return self.facts.distinct

    @property
    def mean_square(self):
        return 2 * self.facts.square / self.facts.samples

    @property
    def largest(self):
        return self.facts.largest

    @property
    def gain(self):
        return self.facts.weight / (self.shape[0] * self.shape[1])

    def threads(self):
        return one_blas_thread()

    def spread(self, step):
        return [part for parts in self.blocks.results(0, "spread", step) for part in parts]

    def clipped(self, ends, centred):
        return RemoteClipped(self.blocks, ends)

    def counts(self, side):
        return np.concatenate(self.blocks.results(side, "counts"))

    # Passes

    def predict(self, left, right):
        check_factors(self, left, right)
        return RemoteValues(
            self.blocks.derived(lambda side: self.blocks.product_pass(side, "predicted", left, right)).held
        )

    def adjoint(self, weights, left, right):
        check_factors(self, left, right)
        rows, cols = self.blocks.gathered(
            *(
                lambda side=side, met=met: self.blocks.submit(side, "applied", met=(met,), each=weights.held)
                for side, met in ((0, right.T), (1, left))
            ),
            each=weights.held,
        )
        return np.concatenate(rows), np.ascontiguousarray(np.concatenate(cols).T)

    def evaluate(self, left, right):
        check_factors(self, left, right)
        rows, cols = self.blocks.gathered(
            *(lambda side=side: self.blocks.product_pass(side, "residual", left, right) for side in (0, 1))
        )
        grads = [np.concatenate([grad for _, grad in found]) for found in (rows, cols)]
        return np.float64(sum(loss for loss, _ in rows)), grads[0], np.ascontiguousarray(grads[1].T)

    def loss(self, left, right):
        check_factors(self, left, right)
        return np.float64(sum(self.blocks.gathered(lambda: self.blocks.product_pass(0, "loss", left, right))[0]))

    def best_scale(self, left, right):
        check_factors(self, left, right)
        found = self.blocks.gathered(lambda: self.blocks.product_pass(0, "products", left, right))[0]
        square, product = map(sum, zip(*found, strict=True))
        return product / square if square > 0 else 0.0

    def ridge(self, side, factor, penalty, variances=None, start=None, means=None):
        check_factor(self, side, factor)
        met = (factor,) if variances is None else (factor, variances)
        own = () if means is None else (means,)
        fits = self.blocks.results(side, "ridge", penalty, variances is not None, met=met, own=own)
        rows, spreads, *sums = zip(*fits, strict=True)
        inverses = None if variances is None else np.concatenate(spreads)
        return Ridge(np.concatenate(rows), inverses, *map(sum, sums))

    def pattern_product(self, side, factor):
        check_factor(self, side, factor)
        return np.concatenate(self.blocks.results(side, "pattern", met=(factor,)))

    def surrogate_svd(self, rank, seed=0, sweeps=12):
        def product(side, block):
            return np.concatenate(self.blocks.results(side, "applied", met=(block,))) / self.dtype.type(self.gain)

        (rows, cols), rank = (partial(product, side) for side in (0, 1)), check_rank(rank, self.shape)
        return truncated_svd(rows, cols, self.shape, rank, like=self.like, seed=seed, sweeps=sweeps)

    def connectivity(self):
        (d1, d2), count, nodes, parts = self.shape, 0, [], []
        for k, (rows, met, cols) in enumerate(self.blocks.results(0, "labels")):
            nodes += [self.blocks.layout.bounds[0][k] + np.arange(rows.size), d1 + met]
            parts += [count + rows, count + cols]
            count += 1 + max(int(rows.max()), int(cols.max()))
        labels = components(np.concatenate(nodes), np.concatenate(parts), (d1 + d2, count))
        return labels[:d1], labels[d1 : d1 + d2]

    # Other entries

    def derived(self, make: Callable[[int], list[Any]], *made_of: Held) -> DistributedEntries:
        return DistributedEntries(self.blocks.derived(make, *made_of))

    def with_values(self, values):
        if values.held is None:
            return self
        return self.derived(lambda side: self.blocks.submit(side, "with_values", each=values.held), values.held)

    def minus(self, left, right):
        check_factors(self, left, right)
        return self.derived(lambda side: self.blocks.product_pass(side, "minus", left, right))

    def scaled(self, factor):
        return self.derived(lambda side: self.blocks.submit(side, "scaled", float(factor)))

    def centred(self):
        mean = self.facts.total / self.facts.weight
        return mean, self.derived(lambda side: self.blocks.submit(side, "shifted", mean))

    def split(self, fraction, seed=0):
        count, columns = held_out_count(fraction, self.n_distinct), self.shape[1]
        buckets = sum(self.blocks.results(0, "draws_of", columns, seed, _BITS))
        ends = np.cumsum(buckets)
        bucket = int(np.searchsorted(ends, count))
        drawn = np.sort(np.concatenate(self.blocks.results(0, "draws_of", columns, seed, _BITS, bucket)))
        limit = int(drawn[count - int(ends[bucket]) - 1])

        def part(held):
            return self.derived(lambda side: self.blocks.submit(side, "part", side, columns, seed, limit, held))

        return part(False), part(True)

    def restricted(self, rows, cols):
        places = [to_host(index) for index in (rows, cols)]
        numbers = [numbered(place, size) for place, size in zip(places, self.shape, strict=True)]
        ends = [np.searchsorted(place, b) for place, b in zip(places, self.blocks.layout.bounds, strict=True)]
        bounds = np.unique(ends[0]), np.unique(ends[1])

        def make(side):
            some, other = np.flatnonzero(np.diff(ends[side])), 1 - side
            return self.blocks.submit(
                side, "restricted", bounds[other], met=(numbers[other],), own=(numbers[side],), some=some
            )

        found = DistributedEntries(Blocks(self.blocks.layout.with_bounds(bounds), Held(make, self.blocks.held)))
        if found.n_measurements == 0:
            raise nothing_left(places[0].size, places[1].size)
        return found

    def for_rows(self, function: Callable[..., Any], shared: Any) -> list[Any]:
        """Results of ``function(begin, end, rows, cols, shared)`` on the workers, for the samples of rows `begin` to `end`."""
        submit = self.blocks.submit
        return self.blocks.gathered(lambda: submit(0, "told_to", function, *scattered(self.client, [shared])))[0]

    @property
    def client(self) -> Any:
        """Client of the cluster."""
        return self.blocks.layout.client

    # What comes to the client

    @cached_property
    def _here(self) -> SampledEntries:
        *arrays, weights = zip(*self.blocks.results(0, "arrays"), strict=True)
        rows, cols, entries = map(np.concatenate, arrays)
        return SampledEntries(
            rows, cols, entries, self.shape, np.concatenate(weights) if self.blocks.layout.weighted else None
        )

    def gathered(self) -> SampledEntries:
        """All entries, in arrays of this process."""
        here = self._here
        here.form = self.form
        return here

    @property
    def entries(self):
        return self._here.entries

    @property
    def weights(self):
        return self._here.weights if self.blocks.layout.weighted else None

    def product(self, left, right):
        check_factors(self, left, right)
        return np.concatenate(self.blocks.gathered(lambda: self.blocks.product_pass(0, "product", left, right))[0])

    def fill(self, matrix):
        return self._here.fill(matrix)

    def to_device(self, device):
        """The same entries in the memory of the workers' devices; what the client has and gets stays in NumPy arrays.

        Parameters
        ----------
        device : str
            "cpu", "cuda" or "cuda:N", as a worker sees its devices: workers of dask-cuda see one each, "cuda".

        Raises
        ------
        ArgumentError, MissingPackageError
            If a worker has no such device, or no CuPy.
        """
        if device == self.blocks.layout.device:
            return self
        if self.blocks.layout.client.submit(check_device, device, pure=False).result() == ("cpu", 0):
            device = "cpu"
        moved = Held(lambda side: self.blocks.submit(side, "to_device", device), self.blocks.held)
        return DistributedEntries(Blocks(self.blocks.layout.on_device(device), moved), self.form)

    _moved = to_device
