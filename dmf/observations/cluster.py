"""Blocks on the workers of a Dask cluster, and tasks on them.

Bytes of a sweep, which is one fit of the rows and one of the columns, at width w (components, an offset and its partner), p bytes
a number, d = d1 + d2 and n workers; `traffic` counts those of the client:

    from the client        3 p w d: the factors, their variances, and the means of their priors
    to the client          2 p w d: the same without the means
    between workers        at most (2 n - 1) (n - 1) / n p w d: the client sends each part once, and workers hand it on

So 160,000 x 60,000 in single precision moves 48 MB from the client and 32 MB to it at w = 18, 174 MB and 116 MB at w = 66.

On paper, 1e10 samples of 1e7 x 1e6 on 50 nodes of 16 cores, with links of 1.25 GB/s and, as assumed, 5e9 multiply-adds a second
and core; a sweep needs about w^2 of these for each sample. Each node holds 4.8 GB of samples (24 bytes each, on both sides):

    w     computing    the client's link    between workers, all at once
    18     0.8 s          3.2 s                1.3 s
    66    10.9 s         11.6 s                4.6 s

The client's link dominates: factors that stayed with the workers would save it, but the solvers' arithmetic with them would
have to go there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dmf.arrays.threads import threads
from dmf.observations.block import Block, call, local_folder
from dmf.observations.stored import Stored, read, stored
from dmf.observations.workers import answered, finished, gathered, scattered

_THERE = ("pending", "finished")  # states of futures


class Held:
    """Futures of something in each block of rows and of columns; made when they are first needed, and again when they are lost.

    Parameters
    ----------
    make : callable
        From a side to the list of its futures.
    made_of : Held
        What `make` uses.
    """

    def __init__(self, make: Callable[[int], list[Any]], *made_of: Held) -> None:
        self._make, self._made_of = make, made_of
        self._futures: dict[int, list[Any]] = {}

    def of(self, side: int) -> list[Any]:
        """The futures of the blocks of rows (side 0) or of columns (side 1)."""
        if side not in self._futures:
            self._futures[side] = self._make(side)
        return self._futures[side]

    def renew(self) -> None:
        """Forget the futures, so that they are made again."""
        for held in self._made_of:
            held.renew()
        self._futures.clear()


class Root(Held):
    """Blocks that are made of no other ones; those that are still there are not made again.

    Parameters
    ----------
    sizes : (int, int)
        Numbers of blocks of rows and of columns.
    make : callable
        From a list of (side, number of a block, where to put it) to their futures.
    client : distributed.Client
    """

    def __init__(self, client: Any, sizes: Sequence[int], make: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__(self._known)
        self._client, self._make_some = client, make
        self._blocks: dict[tuple[int, int], Any] = {(side, k): None for side in (0, 1) for k in range(sizes[side])}

    def _known(self, side: int) -> list[Any]:
        workers = sorted(self._client.nthreads())
        lost = [at for at, future in self._blocks.items() if future is None or future.status not in _THERE]
        if lost:
            if not workers:
                raise TimeoutError("there is no worker")
            places = [(*at, placed([workers[at[1] % len(workers)]])) for at in lost]
            self._blocks.update(zip(lost, self._make_some(places), strict=True))
        return [future for at, future in self._blocks.items() if at[0] == side]


def placed(home: list[Any] | None) -> dict[str, Any]:
    """Options of a task for a worker, or another one if that is gone."""
    return {"workers": home, "allow_other_workers": home is not None, "pure": False}


class Layout:
    """What all entries at the same positions share: where the blocks begin, where they are, and what they meet.

    Attributes
    ----------
    client : distributed.Client
    bounds : two int64 arrays
        Where the blocks of rows begin, and d1; the same of columns.
    dtype : dtype
    weighted : bool
    device : str
        Where workers have the entries; see `Block`.
    traffic : dict
        Bytes "sent" to workers and "received" from them by the client so far.
    """

    def __init__(
        self,
        client: Any,
        bounds: tuple[np.ndarray, np.ndarray],
        dtype: Any,
        weighted: bool,
        traffic: dict[str, int] | None = None,
        device: str = "cpu",
    ) -> None:
        self.client, self.bounds, self.dtype, self.weighted = client, bounds, np.dtype(dtype), weighted
        self.device = device
        self.traffic: dict[str, int] = {"sent": 0, "received": 0} if traffic is None else traffic
        self._homes: dict[int, list[Any]] = {}
        self._needed: dict[int, list[Any]] = {}

    def with_bounds(self, bounds: tuple[np.ndarray, np.ndarray]) -> Layout:
        """The same for other rows and columns."""
        return Layout(self.client, bounds, self.dtype, self.weighted, self.traffic, self.device)

    def on_device(self, device: str) -> Layout:
        """The same for entries on another device of the workers."""
        return Layout(self.client, self.bounds, self.dtype, self.weighted, self.traffic, device)

    def needed(self, side: int, blocks: Held) -> list[Any]:
        """For each block the parts of the other side that it meets."""
        if side not in self._needed:
            futures = [self.client.submit(call, "needed", block, pure=False) for block in blocks.of(side)]
            self._needed[side] = answered(self.client, futures, partial(self.client.gather, futures, direct=True))
        return self._needed[side]

    def homes(self, side: int, blocks: Held) -> list[Any]:
        """For each block the worker that has it, or had it when last asked; others may take its tasks where that is gone."""
        if side not in self._homes:
            futures = blocks.of(side)
            finished(self.client, futures)
            where = self.client.who_has(futures)
            self._homes[side] = [list(where.get(future.key, ()))[:1] or None for future in futures]
        return self._homes[side]

    def forget_homes(self) -> None:
        """Ask where the blocks are when that is next needed."""
        self._homes.clear()


class Blocks:
    """Blocks of rows and of columns of the same entries.

    Parameters
    ----------
    layout : Layout
    held : Held
        Futures of `Block`.
    """

    def __init__(self, layout: Layout, held: Held) -> None:
        self.layout, self.held = layout, held

    def submit(
        self,
        side: int,
        method: str,
        *args: Any,
        met: Sequence[Any] = (),
        own: Sequence[Any] | None = None,
        each: Held | None = None,
        some: Any = None,
    ) -> list[Any]:
        """Futures of a method of the blocks of a side.

        Parameters
        ----------
        met : sequence of arrays
            With a row for each row of the other side: a block gets the parts that it meets.
        own : sequence of arrays, or None
            With a row for each row of this side: a block gets its own. None: the method takes none.
        each : Held, optional
            Of which every block gets its own, as its last argument.
        some : int array, optional
            Which blocks; all unless given.
        """
        layout, client, futures = self.layout, self.layout.client, self.held.of(side)
        homes, arguments = layout.homes(side, self.held), [list[Any]() for _ in futures]
        pieces = [
            _pieces(arrays, bounds) for arrays, bounds in ((met, layout.bounds[1 - side]), (own, layout.bounds[side]))
        ]
        sent = self._sent([*pieces[0], *pieces[1]])
        if met:
            for k, numbers in enumerate(layout.needed(side, self.held)):
                arguments[k].append([sent[p] for p in numbers])
        if own is not None:
            for k, piece in enumerate(sent[len(pieces[0]) :] or [()] * len(futures)):
                arguments[k].append(piece)
        return [
            client.submit(
                call,
                method,
                futures[k],
                *arguments[k],
                *args,
                *([] if each is None else [each.of(side)[k]]),
                **placed(homes[k]),
            )
            for k in (range(len(futures)) if some is None else some)
        ]

    def _sent(self, pieces: list[Any]) -> list[Any]:
        """Futures of pieces of arrays, shared out to the workers, who send them on to those that need them."""
        if not pieces:
            return []
        self.layout.traffic["sent"] += sum(array.nbytes for piece in pieces for array in piece)
        return scattered(self.layout.client, pieces)

    def gathered(self, *submits: Callable[[], list[Any]], each: Held | None = None) -> list[Any]:
        """Results of what some calls submit, which are repeated where a worker is lost; `each` was made of these blocks."""
        from dask.sizeof import sizeof

        def renew() -> None:
            self.layout.forget_homes()
            for held in (self.held, each):
                if held is not None:
                    held.renew()

        found = gathered(self.layout.client, lambda: [submit() for submit in submits], renew)
        self.layout.traffic["received"] += sizeof(found)
        return found

    def results(self, side: int, method: str, *args: Any, **options: Any) -> list[Any]:
        """Results of one `submit`."""
        return self.gathered(lambda: self.submit(side, method, *args, **options))[0]

    def product_pass(
        self, side: int, method: str, left: Any, right: Any, *args: Any, each: Held | None = None
    ) -> list[Any]:
        """Futures of what needs a product of factors."""
        met, own = (right.T, left) if side == 0 else (left, right.T)
        return self.submit(side, method, *args, met=(met,), own=(own,), each=each)

    def derived(self, make: Callable[[int], list[Any]], *made_of: Held) -> Blocks:
        """Other samples at some of the same positions, whose futures `make` makes of these and of `made_of`."""
        return Blocks(self.layout, Held(make, self.held, *made_of))


class RemoteClipped:
    """The entries of blocks at the ends of a range; see `dmf.observations.clipped.Clipped`."""

    def __init__(self, blocks: Blocks, ends: tuple[float, float]) -> None:
        self._blocks, self._ends = blocks, ends

    def expected(self, entries: Any, left: Any, right: Any, noise: float) -> tuple[Any, float]:
        """The entries with expected values in place of clipped ones, and the sum of the variances of these."""
        known = self._blocks.held
        there = entries.derived(
            lambda side: entries.blocks.product_pass(side, "expected", left, right, self._ends, noise, each=known),
            known,
        )
        return there, sum(there.blocks.results(0, "replaced_variance"))


def built(samples: tuple[Any, ...]) -> Block:
    """A block of samples that were sent."""
    return Block.of(*samples)


def joined(pieces: list[Any], own: tuple[int, int], bounds: np.ndarray) -> Stored:
    """A block of its pieces of all sources."""
    with threads(1):
        rows, cols, values = map(np.concatenate, zip(*map(read, pieces), strict=True))
        return stored([Block.of(rows, cols, values, None, own, bounds, on_disk=True)], local_folder())[0]


def _pieces(arrays: Sequence[Any] | None, bounds: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    if not arrays:
        return []
    arrays = [np.ascontiguousarray(array) for array in arrays]
    return [tuple(array[begin:end] for array in arrays) for begin, end in zip(bounds[:-1], bounds[1:], strict=True)]
