"""Records of delimited text, many at a time, so that columns of numbers and ids are read as arrays."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter

import numpy as np

from dmf.io.ids import distinct

_WORD = 8  # bytes of fields that are compared as one integer
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(_WORD + 1)], "<u8")
_SHIFTS = np.array([8 * (_WORD - n) for n in range(_WORD + 1)], "<u8")
_LEAST = np.array([1, 0, *(10**n for n in range(1, _WORD))], "<u8")  # whole numbers of so many digits


class Block:
    """Records that follow one another.

    Parameters
    ----------
    records : list of lists of str
        All of the same width; fields as they stand in the file, blanks around them included.
    lines : sequence of int
        The line of the file on which each begins, from 1.
    """

    records: list[list[str]]

    def __init__(self, records: list[list[str]], lines: Sequence[int]) -> None:
        self.records, self.lines = records, lines

    def __len__(self) -> int:
        return len(self.lines)

    def without_first(self) -> Block:
        """All but the first record."""
        return Block(self.records[1:], self.lines[1:])

    def column(self, k: int) -> list[str]:
        """The fields of one column."""
        return list(map(itemgetter(k), self.records))

    def distinct(self, k: int) -> tuple[list[str], np.ndarray | None]:
        """Fields of column `k` in the order of first appearance, and which of them each record has; None: they are one a record.

        A field may come more than once.
        """
        return self.column(k), None

    def integers(self, k: int) -> np.ndarray | None:
        """Column `k` as integers, if all its fields are such, of at most eight digits, without sign, blanks and leading zeros."""
        return None

    def first(self, k: int, is_wanted: Callable[[str], bool]) -> tuple[int, str]:
        """Line and field, stripped, of the first in column `k` that is wanted; there must be one."""
        fields = map(str.strip, self.column(k))
        return next((line, field) for line, field in zip(self.lines, fields, strict=True) if is_wanted(field))


class PlainBlock(Block):
    """Records of one line each, whose fields stand between single delimiters, unquoted.

    Made by `of`.
    """

    def __init__(self, content: bytes, delimiter: bytes, ends: np.ndarray, sizes: np.ndarray, first_line: int) -> None:
        self._content, self._delimiter, self._ends, self._sizes = content, delimiter.decode(), ends, sizes
        self.lines = range(first_line, first_line + len(ends))

    @classmethod
    def of(cls, content: bytes, delimiter: str, width: int, first_line: int) -> PlainBlock | None:
        """The records of whole lines; None if they are not that plain, and a general reader is needed."""
        separator = delimiter.encode()
        if len(separator) > 1:
            if b"\t" in content:
                return None
            content, separator = content.replace(separator, b"\t"), b"\t"
        content = content.replace(b"\r\n", b"\n")
        content += b"" if content.endswith(b"\n") else b"\n"
        if any(mark in content for mark in (b'"', b"\r", b"\0")):
            return None
        letters = np.frombuffer(content, np.uint8)
        is_end = letters == ord("\n")
        ends = np.flatnonzero(is_end | (letters == ord(separator)))
        count = int(np.count_nonzero(is_end))
        if len(ends) != count * width or not is_end[ends[width - 1 :: width]].all():
            return None
        sizes = np.diff(ends, prepend=-1) - 1
        if sizes.max() >= csv.field_size_limit():
            return None
        try:
            content.decode()
        except UnicodeDecodeError:
            return None
        return cls(content, separator, ends.reshape(count, width), sizes.reshape(count, width), first_line)

    def without_first(self) -> PlainBlock:
        """All but the first record."""
        begin = int(self._ends[0, -1]) + 1
        ends, sizes = self._ends[1:] - begin, self._sizes[1:]
        return PlainBlock(self._content[begin:], self._delimiter.encode(), ends, sizes, self.lines[0] + 1)

    @cached_property
    def _fields(self) -> list[str]:
        return self._content.decode().replace("\n", self._delimiter).split(self._delimiter)

    @property
    def records(self) -> list[list[str]]:  # type: ignore[override]
        """The fields of each record."""
        width = self._ends.shape[1]
        return [self._fields[k : k + width] for k in range(0, len(self) * width, width)]

    def column(self, k: int) -> list[str]:
        """The fields of one column."""
        width = self._ends.shape[1]
        return self._fields[k : len(self) * width : width]

    def distinct(self, k: int) -> tuple[list[str], np.ndarray | None]:
        """As of `Block`; short fields are compared as integers."""
        words = self._words(k)
        if words is None:
            return self.column(k), None
        different, which = distinct(words)
        return [word.decode() for word in different.view("S8").tolist()], which

    def integers(self, k: int) -> np.ndarray | None:
        """As of `Block`."""
        words = self._words(k)
        if words is None:
            return None
        sizes = self._sizes[:, k]
        digits = (words - (0x3030303030303030 & _MASKS[sizes])) << _SHIFTS[sizes]
        if (((digits + 0x7676767676767676) | digits) & 0x8080808080808080).any():
            return None
        # Neighbouring digits, pairs and fours are joined, all of a word at once.
        digits = (digits * 10 + (digits >> 8)) & 0x00FF00FF00FF00FF
        digits = (digits * 100 + (digits >> 16)) & 0x0000FFFF0000FFFF
        digits = (digits * 10_000 + (digits >> 32)) & 0xFFFFFFFF
        return digits.astype(np.int64) if (digits >= _LEAST[sizes]).all() else None

    def _words(self, k: int) -> np.ndarray | None:
        """The fields of column `k` as integers of their bytes; None if one is too long."""
        sizes = self._sizes[:, k]
        if sizes.max(initial=0) > _WORD:
            return None
        padded = self._content + bytes(_WORD)
        everywhere = np.ndarray(len(self._content) + 1, "<u8", padded, strides=(1,))
        return everywhere[self._ends[:, k] - sizes] & _MASKS[sizes]
