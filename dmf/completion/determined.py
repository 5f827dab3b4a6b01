"""Which rows and columns of a matrix its entries leave open, however well they are fitted."""

from __future__ import annotations

import numpy as np

from dmf.arrays.backend import to_host
from dmf.observations import Entries


def short_of(observations: Entries, rank: int) -> tuple[int, int]:
    """Numbers of rows and of columns with fewer different entries than `rank`, which do not determine their factors."""
    rows, cols = (to_host(observations.counts(side, distinct=True)) for side in (0, 1))
    return int(np.sum(rows < rank)), int(np.sum(cols < rank))


def apart(observations: Entries) -> tuple[int, int]:
    """Numbers of rows and of columns with entries that do not hang together with the largest block of them.

    Blocks that share neither a row nor a column can be scaled against each other: what lies between them is not determined.
    """
    components = [to_host(part) for part in observations.connectivity()]
    sizes = [np.bincount(part, minlength=1 + max(int(c.max()) for c in components)) for part in components]
    blocks = np.minimum(*sizes) > 0  # a row or column without entries is no block
    others = blocks & (np.arange(blocks.size) != np.argmax(np.where(blocks, sizes[0] + sizes[1], -1)))
    return int(np.sum(sizes[0][others])), int(np.sum(sizes[1][others]))
