"""Ids in partitions, numbered by workers of which each knows a part of them: those whose hashes leave one remainder.

They are numbered in the order of their first appearance, as in one file. Each partition numbers its own ids (`codes_of`,
`merged`) and cuts them by their hashes (`shared`). Each part of those of all partitions is put together (`merged`), and the order
of all comes from where each one appeared first (`ordered`, 16 bytes an id). A partition gets back the numbers of its own,
part by part (`numbers_of`).
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dmf.errors import ObservationError
from dmf.io.forms import text_of

_PARTITION = 2**40  # ids that one can have


class Ids(NamedTuple):
    """Different ids of rows, or of columns.

    Attributes
    ----------
    ids : pandas Index, shape (d,)
    counts : int array, shape (d,)
        Number of values of each.
    first : int array, shape (d,)
        Ascending with the place of the first appearance in the partition, or in all partitions.
    """

    ids: Any
    counts: np.ndarray
    first: np.ndarray


class Merged(NamedTuple):
    """Ids of several pieces.

    Attributes
    ----------
    found : Ids
    places : list of int32 arrays
        For each piece, where its ids are in `found`.
    """

    found: Ids
    places: list[np.ndarray]


def codes_of(keys: Sequence[Any], seen: np.ndarray, where: str) -> tuple[tuple[np.ndarray, ...], tuple[Ids, ...]]:
    """For each of some columns the number of the id in each row that has a value, by first appearance, and the ids.

    Parameters
    ----------
    keys : pandas Series, shape (m,) each
    seen : bool array, shape (m,)
        Which rows have a value.
    where : str
        Name of the partition in messages.

    Raises
    ------
    ObservationError
        If an id is missing.
    """
    import pandas as pd

    both = []
    for key in keys:
        codes, ids = pd.factorize(key)
        if codes.size and codes.min() < 0:
            raise ObservationError(
                f"column {key.name!r} has no id in row {int(codes.argmin())} (from 0) of {where}, but every entry has one. "
                "Give it, or leave the row out.",
                argument="frame",
            )
        codes = codes[seen].astype(np.int32)
        both.append((codes, Ids(pd.Index(ids), np.bincount(codes, minlength=len(ids)), np.arange(len(ids)))))
    codes, ids = zip(*both, strict=True)
    return codes, ids


def shared(ids: Ids, parts: int) -> tuple[list[Ids], np.ndarray]:
    """Ids of a partition by parts of their hashes, and where these are among all of the partition; int32."""
    part = parts_of(ids.ids, parts)
    order = np.argsort(part, kind="stable").astype(np.int32)
    places = np.split(order, np.cumsum(np.bincount(part, minlength=parts))[:-1])
    return [Ids(ids.ids[at], ids.counts[at].astype(np.int32), at) for at in places], order


def parts_of(ids: Any, parts: int) -> np.ndarray:
    """Part of each id: the same for equal ids of different types, such as 1 and 1.0."""
    from pandas.util import hash_array

    if ids.dtype.kind in "iufb":
        hashes = hash_array(ids.to_numpy(np.float64) + 0.0)  # without -0
    else:
        cells, hashes = np.asarray(ids, dtype=object), np.empty(len(ids), np.uint64)
        real = np.fromiter((isinstance(cell, numbers.Real) for cell in cells), bool, len(cells))
        hashes[real] = hash_array(cells[real].astype(np.float64) + 0.0)
        hashes[~real] = hash_array(np.array([text_of(cell) for cell in cells[~real]], dtype=object), categorize=False)
    return (hashes % np.uint64(parts)).astype(np.int64)


def merged(pieces: Sequence[tuple[Ids, ...]]) -> tuple[Merged, ...]:
    """The ids of some pieces, which come in the order of the partitions, put together; for each column."""
    import pandas as pd

    found = []
    for same in zip(*pieces, strict=True):
        ids: Any = [each.ids for each in same]
        codes, unique = pd.factorize(ids[0].append(ids[1:]))
        counts = np.bincount(codes, np.concatenate([each.counts for each in same]), len(unique)).astype(np.int64)
        first = np.empty(len(unique), np.int64)
        places = np.concatenate([each.first + np.int64(number * _PARTITION) for number, each in enumerate(same)])
        first[codes[::-1]] = places[::-1]  # the first one is written last
        ends = np.cumsum([len(each) for each in ids])[:-1]
        found.append(Merged(Ids(pd.Index(unique), counts, first), np.split(codes.astype(np.int32), ends)))
    return tuple(found)


def appearances(part: tuple[Merged, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `ordered` needs of a part: counts and first appearances."""
    return [(each.found.counts, each.found.first) for each in part]


def ordered(parts: Sequence[Any]) -> tuple[list[np.ndarray], list[Any]]:
    """From the `appearances` of all parts: the counts of all ids in the order of their numbers, and the numbers by parts.

    Returns
    -------
    counts : list of int64 arrays, shape (d,)
        One for each column.
    numbers : list of tuples of int32 arrays
        For each part, one for each column.
    """
    counts, given = [], []
    for same in zip(*parts, strict=True):
        order = np.argsort(np.concatenate([first for _, first in same]))
        numbers_of_all = np.empty(order.size, np.int32)
        numbers_of_all[order] = np.arange(order.size, dtype=np.int32)
        counts.append(np.concatenate([count for count, _ in same])[order])
        given.append(np.split(numbers_of_all, np.cumsum([count.size for count, _ in same])[:-1]))
    return counts, list(zip(*given, strict=True))


def numbers_of(part: tuple[Merged, ...], order: Any, k: int) -> list[tuple[np.ndarray, ...]]:
    """Numbers of the ids of part `k` in each partition, for each column."""
    columns = [
        [numbers_of_part[places] for places in each.places]
        for each, numbers_of_part in zip(part, order[1][k], strict=True)
    ]
    return list(zip(*columns, strict=True))


def names_of(part: tuple[Merged, ...], order: Any, k: int) -> list[tuple[np.ndarray, list[str]]]:
    """Numbers and names of the ids of part `k`, for each column."""
    return [(given, list(map(text_of, each.found.ids))) for each, given in zip(part, order[1][k], strict=True)]
