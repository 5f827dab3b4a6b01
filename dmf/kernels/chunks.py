"""How the work of a kernel is shared out to threads. The numbers that it computes do not depend on that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmf.arrays.threads import share_out, thread_count

PARALLEL_WORK = 500_000  # multiply-adds below which handing work to threads costs more than it saves
_CHUNK_WORK = 125_000  # multiply-adds that a thread takes at a time, at least
_SHARES = 8  # pieces for each thread, at most: enough that no thread waits long at the end


def frozen(array: np.ndarray) -> np.ndarray:
    """Contiguous view that cannot be written to: one compiled form serves arrays that can be and those that cannot."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def in_chunks(work: int, bounds: np.ndarray, run: Callable[[int, int], None], calls: int = 1) -> None:
    """Call ``run(begin, end)`` for pieces between `bounds`, on as many threads as so many multiply-adds are worth.

    `run` writes results of its own piece only, and makes so many `calls` of kernels.
    """
    threads = thread_count()
    pieces = min(bounds.shape[0] - 1, work // (calls * _CHUNK_WORK), _SHARES * threads)
    if work <= PARALLEL_WORK or threads == 1 or pieces < 2:
        run(int(bounds[0]), int(bounds[-1]))
        return
    cuts = bounds[np.arange(pieces + 1) * (bounds.shape[0] - 1) // pieces].tolist()
    share_out(lambda k: run(cuts[k], cuts[k + 1]), pieces)
