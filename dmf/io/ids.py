"""Ids of rows and columns: any text, numbered in the order of first appearance."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

_LOOKUP_SIZE = 2**24  # integers below it are looked up in an array
_WHOLE = re.compile(r"[+-]?\d+(\.0+)?")


class Stack:
    """An array that grows: what is held twice while it does is little."""

    def __init__(self, dtype: Any) -> None:
        self._array, self._length = np.empty(0, dtype), 0

    def __len__(self) -> int:
        return self._length

    def add(self, values: np.ndarray) -> None:
        """Append values."""
        end = self._length + len(values)
        if end > len(self._array):
            self._array.resize(max(end, len(self._array) * 5 // 4), refcheck=False)
        self._array[self._length : end] = values
        self._length = end

    def result(self) -> np.ndarray:
        """All values; nothing is added after this."""
        self._array.resize(self._length, refcheck=False)
        return self._array


class Numbering:
    """Numbers given to ids, in the order in which they come."""

    def __init__(self) -> None:
        self._places: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        self._numbers = Stack(np.int32)
        self._of_integers = np.zeros(0, np.int32)  # their numbers + 1, where they have one

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, texts: Sequence[str], which: np.ndarray | None = None) -> bool:
        """Number further ids, the blanks around them removed: those of `which` texts, or all. Whether none so far is empty."""
        ids = map(str.strip, texts)
        numbers = np.fromiter(map(self._places.__getitem__, ids), np.int32, len(texts))
        self._numbers.add(numbers if which is None else numbers[which])
        return "" not in self._places

    def add_integers(self, ids: np.ndarray) -> None:
        """Number further ids, which are integers."""
        least, largest = int(ids.min(initial=0)), int(ids.max(initial=0))
        if least < 0 or largest >= _LOOKUP_SIZE:
            different, which = distinct(ids)
            self.add(list(map(str, different.tolist())), which)
            return
        if largest >= len(self._of_integers):
            self._of_integers.resize(2 * largest + 1, refcheck=False)  # the new ones are 0
        numbers = self._of_integers[ids]
        is_new = numbers == 0
        if is_new.any():
            new = distinct(ids[is_new])[0].tolist()
            self._of_integers[new] = [1 + self._places[str(k)] for k in new]
            numbers = self._of_integers[ids]
        numbers -= 1
        self._numbers.add(numbers)

    def result(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """The number of each id that was added, and the ids by number."""
        return merged(self._numbers.result(), list(self._places))


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of integers in the order of first appearance, and which of them each is."""
    order = np.argsort(values)
    ascending = values[order]
    is_new = np.ones(len(values), bool)
    is_new[1:] = ascending[1:] != ascending[:-1]
    which = np.empty(len(values), np.int32)
    which[order] = np.cumsum(is_new, dtype=np.int32) - 1
    first = np.empty(np.count_nonzero(is_new), np.int32)
    first[which[::-1]] = np.arange(len(values) - 1, -1, -1, dtype=np.int32)  # of repeated positions, the last one stays
    by_first = np.argsort(first)
    place = np.empty(len(first), np.int32)
    place[by_first] = np.arange(len(first), dtype=np.int32)
    return values[first[by_first]], place[which]


def merged(numbers: np.ndarray, ids: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers and ids, where 100.0 among whole numbers is the id 100: pandas writes them so beside a missing one."""
    if not any(map(str.endswith, ids, itertools.repeat(".0"))) or not all(map(_WHOLE.fullmatch, ids)):
        return numbers, tuple(ids)
    places: dict[str, int] = {}
    new = [places.setdefault(name.partition(".")[0], len(places)) for name in ids]
    return np.array(new, np.int32)[numbers], tuple(places)
