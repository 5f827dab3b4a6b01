"""What a worker of a cluster holds and computes: the samples of some neighbouring rows, or of some neighbouring columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dmf.arrays.backend import Array, from_host, is_numpy, namespace, on_device_of, to_host
from dmf.arrays.threads import threads
from dmf.observations.base import Ridge, half_square
from dmf.observations.clipped import Spread
from dmf.observations.positions import components, draws, looked_up, numbered
from dmf.observations.sampled import SampledEntries
from dmf.observations.stored import Stored, read, stored


class Facts(NamedTuple):
    """Sums over samples; those of a matrix are the sums of those of its row blocks, `largest` the largest one.

    Attributes
    ----------
    samples, distinct : int
    weight : float
        Sum of the weights.
    total, square : float
        Sum of the entries times their weights, and half the sum of the squared measurements.
    largest : float
        Absolute value of a measurement.
    """

    samples: int
    distinct: int
    weight: float
    total: float
    square: float
    largest: float


@dataclass(frozen=True, eq=False)
class Block:
    """Samples of the rows from `first` on; in the block of columns, rows and columns are exchanged throughout.

    The columns that are met are numbered anew, so that a pass needs no more of the other factor. It comes in the parts that
    `bounds` cut, those alone that are met.

    Parameters
    ----------
    entries : SampledEntries, shape (n, q)
        Of the block's own rows and the columns met. There may be none.
    first : int
    met : int array, shape (q,)
        Ascending numbers of the columns met; where there is no sample, of one column all the same.
    bounds : int64 array
    on_disk : bool
        Whether it, and what is made of it, is kept on the worker's disk; see `dmf.observations.stored`.
    device : str
        Where its entries are, and what `_PASSES` computes; "cpu", or a device of the worker. All else is computed on the host.
    replaced : float
        Sum of the variances of values that were clipped, where their expectations are in their place.
    """

    entries: SampledEntries
    first: int
    met: np.ndarray
    bounds: np.ndarray
    on_disk: bool = False
    device: str = "cpu"
    replaced: float = 0.0

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        cols: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray | None,
        own: tuple[int, int],
        bounds: np.ndarray,
        on_disk: bool = False,
    ) -> Block:
        """The block of the rows from ``own[0]`` to ``own[1]``, of samples in any order."""
        seen = np.zeros(bounds[-1], bool)
        seen[cols] = True
        seen[0] |= rows.size == 0
        met = np.flatnonzero(seen).astype(np.int32)
        shape = (own[1] - own[0], met.size)
        cols = looked_up(numbered(met, seen.size), cols)
        rows = rows - own[0]
        if rows.size:
            entries = SampledEntries(rows.astype(np.int32, copy=False), cols, values, shape, weights)
        else:
            entries = SampledEntries.none(shape, values.dtype, weights is not None)
        return cls(entries, own[0], met, bounds, on_disk)

    def __sizeof__(self) -> int:
        """Bytes of its arrays, by which Dask decides what it keeps in memory."""
        return self.entries.nbytes + self.met.nbytes

    def needed(self) -> np.ndarray:
        """Numbers of the parts that are met."""
        return np.flatnonzero(np.diff(np.searchsorted(self.met, self.bounds)))

    def taken(self, parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        """What is met of some arrays; a part holds a piece of each of them. On the device of the entries."""
        cuts, needed = np.searchsorted(self.met, self.bounds), self.needed()
        places = [self.met[cuts[p] : cuts[p + 1]] - self.bounds[p] for p in needed]
        return [
            self._here(
                np.concatenate(
                    [piece if at.size == len(piece) else piece[at] for piece, at in zip(pieces, places, strict=True)]
                )
            )
            for pieces in zip(*parts, strict=True)
        ]

    def with_values(self, values: np.ndarray) -> Block:
        """The same positions with other measurements."""
        return replace(self, entries=self.entries.with_values(values))

    def facts(self) -> Facts:
        """What sums over all samples are made of."""
        values, weights = self.entries.values, self.entries.weights
        if not values.size:
            return Facts(0, 0, 0.0, 0.0, 0.0, 0.0)
        total = np.sum(values if weights is None else self._rooted(values), dtype=np.float64)
        weight = values.size if weights is None else np.sum(weights, dtype=np.float64)
        sums = (float(x) for x in (weight, total, half_square(values), np.max(np.abs(values))))
        return Facts(values.size, self.entries.n_distinct, *sums)

    def _rooted(self, values: Array) -> Array:
        """Values times the roots of the weights."""
        weights = self.entries.weights
        return values if weights is None else namespace(weights).sqrt(weights) * values

    def _here(self, array: Any) -> Array:
        """A host's array on the device of the entries."""
        return from_host(array, self.entries.values) if is_numpy(array) else array

    def to_device(self, device: str) -> Block:
        """The same block in the memory of a device of this worker; one without entries stays on the host."""
        if device == self.device or not self.entries.rows.shape[0]:
            return self
        entries: Any = self.entries.to_device(device)
        return replace(self, entries=entries, on_disk=False, device=device)

    # Passes. `parts` hold the other factor; `own` are rows of the block's own.

    def ridge(self, parts: Any, own: Any, penalty: np.ndarray, spread: bool) -> Ridge:
        """Rows fitted to the other factor and, where `spread`, its variances; drawn to `own`, if anything."""
        factor, *variances = self.taken(parts)
        means = self._here(own[0]) if own else None
        return self.entries.ridge(0, factor, self._here(penalty), variances[0] if spread else None, None, means)

    def _factors(self, parts: Any, own: Any) -> tuple[Array, Array]:
        other = self.taken(parts)[0]
        return self._here(own[0]), namespace(other).matrix_transpose(other)

    def predicted(self, parts: Any, own: Any) -> np.ndarray:
        """Measurements of a product of factors."""
        return self.entries.predict(*self._factors(parts, own))

    def product(self, parts: Any, own: Any) -> np.ndarray:
        """Entries of a product of factors."""
        return self.entries.product(*self._factors(parts, own))

    def applied(self, parts: Any, values: np.ndarray | None = None) -> np.ndarray:
        """Rows of the adjoint's matrix times the other factor; of the measurements unless `values` are given."""
        values = self._rooted(self.entries.values if values is None else self._here(values))
        return self.entries.sparse_product(values, 0, self.taken(parts)[0])

    def residual(self, parts: Any, own: Any) -> tuple[float, np.ndarray]:
        """Half the squared residual, and `applied` of it."""
        left = self.predicted(parts, own) - self.entries.values
        return float(half_square(left)), self.applied(parts, left)

    def loss(self, parts: Any, own: Any) -> float:
        """Half the squared residual."""
        return float(half_square(self.predicted(parts, own) - self.entries.values))

    def products(self, parts: Any, own: Any) -> tuple[float, float]:
        """Sums of squares of what is predicted, and of its products with the measurements."""
        predicted = self.predicted(parts, own)
        xp = namespace(predicted)
        product = xp.sum(xp.astype(predicted, xp.float64) * xp.astype(self.entries.values, xp.float64))
        return 2 * float(half_square(predicted)), float(product)

    def expected(self, parts: Any, own: Any, ends: tuple[float, float], noise: float, known: Any) -> Block:
        """With expected values in place of clipped ones, of which `known` is the block before it was centred; see `Clipped`."""
        clipped = read(known).entries.clipped(ends, self.entries)
        entries, replaced = clipped.expected(self.entries, *self._factors(parts, own), noise)
        return replace(self, entries=entries, replaced=replaced)

    def replaced_variance(self) -> float:
        """Sum of the variances of clipped values whose expectations it holds."""
        return self.replaced

    def spread(self, step: int) -> list[Spread]:
        """Range of the measurements; an empty list for a block without any."""
        return self.entries.spread(step) if self.entries.values.size else []

    def pattern(self, parts: Any) -> np.ndarray:
        """Rows of the pattern times the other factor."""
        return self.entries.sparse_product(
            namespace(self.entries.values).ones_like(self.entries.values), 0, self.taken(parts)[0]
        )

    def counts(self) -> np.ndarray:
        """Number of samples in each row."""
        return self.entries.counts(0)

    # Other blocks

    def minus(self, parts: Any, own: Any) -> Block:
        """Without a product of factors."""
        return self.with_values(self.entries.values - self.predicted(parts, own))

    def scaled(self, factor: float) -> Block:
        """Measurements times a number."""
        return self.with_values(self.entries.values.dtype.type(factor) * self.entries.values)

    def shifted(self, mean: float) -> Block:
        """Entries without their mean."""
        values = self.entries.values
        return self.with_values(values - self._rooted(np.full(values.shape, mean, values.dtype)))

    def restricted(self, parts: Any, own: Any, bounds: np.ndarray) -> Block:
        """Some rows and columns, of which `own` and `parts` hold the new numbers, -1 for the others."""
        entries = self.entries
        rows, cols = looked_up(own[0], entries.rows), looked_up(self.taken(parts)[0], entries.cols)
        kept = (rows >= 0) & (cols >= 0)
        weights, places = None if entries.weights is None else entries.weights[kept], own[0][own[0] >= 0]
        ends = int(places[0]), int(places[-1]) + 1
        return Block.of(rows[kept], cols[kept], entries.entries[kept], weights, ends, bounds, self.on_disk)

    # Positions in the whole matrix

    def places(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each sample; `side` is 1 for a block of columns."""
        own, other = self.entries.rows + np.int32(self.first), looked_up(self.met, self.entries.cols)
        return (other, own) if side else (own, other)

    def _drawn(self, side: int, n_columns: int, seed: int) -> np.ndarray:
        return draws(*self.places(side), n_columns, seed)

    def draws_of(self, n_columns: int, seed: int, bits: int, bucket: int | None = None) -> np.ndarray:
        """Of the draws of different positions, how many begin with which `bits`, or those of one bucket, as they are."""
        drawn = self._drawn(0, n_columns, seed)
        drawn = drawn[self.entries.new_positions] if drawn.size else drawn
        buckets = (drawn >> np.uint64(64 - bits)).astype(np.int64)
        return np.bincount(buckets, minlength=2**bits) if bucket is None else drawn[buckets == bucket]

    def part(self, side: int, n_columns: int, seed: int, limit: int, held: bool) -> Block:
        """The samples whose draw is at most `limit`, or the others."""
        chosen = self._drawn(side, n_columns, seed) <= np.uint64(limit)
        return replace(self, entries=self.entries.chosen(chosen if held else ~chosen))

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Connected components within the block: of its rows, and the columns met and theirs."""
        n = self.entries.shape[0]
        labels = components(self.entries.rows, self.entries.cols, self.entries.shape)
        return labels[:n], self.met, labels[n:]

    def told_to(self, function: Any, *arguments: Any) -> Any:
        """What a function makes of the first row, the end, and row and column of each sample of a block of rows."""
        return function(self.first, self.first + self.entries.shape[0], *self.places(0), *arguments)

    def arrays(self) -> tuple[Any, ...]:
        """Rows, columns, entries and weights of all samples of a block of rows."""
        return *self.places(0), self.entries.entries, self.entries.weights


_PASSES = ("ridge", "predicted", "product", "applied", "residual", "loss", "products", "pattern", "minus")


def call(method: str, block: Block | Stored, *arguments: Any) -> Any:
    """A method of a block on one thread: how many blocks are worked on at a time is left to the cluster.

    What becomes of a stored block is stored, too; what becomes of one on a device is there, too. Other results are on the host.
    """
    with threads(1):
        here: Block = read(block)
        one = here if method in (*_PASSES, "to_device") else here.to_device("cpu")
        with on_device_of(one.entries.values):
            found = getattr(one, method)(*arguments)
        if not isinstance(found, Block):
            return _on_host(found)
        if one is not here:
            found = found.to_device(here.device)
        if not found.on_disk:
            return found
        return stored([found], local_folder(), list(block.files()) if isinstance(block, Stored) else ())[0]


def _on_host(found: Any) -> Any:
    """Arrays of a result on the host, in one piece each: others Dask copies twice, element by element."""
    if isinstance(found, Ridge):
        return Ridge(*map(_on_host, found))
    if isinstance(found, (tuple, list)):
        return (
            type(found)(*map(_on_host, found))
            if isinstance(found, Facts | Spread)
            else type(found)(map(_on_host, found))
        )
    return np.ascontiguousarray(to_host(found)) if hasattr(found, "shape") and found.shape else found


def local_folder() -> str:
    """Where the worker that runs this task keeps its files; Dask removes it."""
    from distributed import get_worker

    return str(get_worker().local_directory)
