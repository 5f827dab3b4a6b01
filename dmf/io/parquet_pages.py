"""How much the pages of a Parquet file unpack to, by their own headers: readers believe these, whatever the footer says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

_HEADER_BYTES = 2**16  # bytes within which the header of a page ends; statistics of long texts are in it
_NESTING = 16  # structs and lists within one another
_SIZE, _LENGTH = 2, 3  # fields of a header: bytes of the page once it is unpacked, and in the file
# Types of Thrift's compact protocol.
_INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (4, 5, 6), 7, 8, (9, 10), 11, 12


def unpacked_bytes(path: str | Path, metadata: Any) -> int:
    """Sum of the sizes of all pages of a file, unpacked.

    Parameters
    ----------
    path : path
    metadata : pyarrow.parquet.FileMetaData
        Says where the pages are.

    Raises
    ------
    ValueError
        If there is no page where one should be.
    """
    total = 0
    with Path(path).open("rb") as file:
        for group in range(metadata.num_row_groups):
            for k in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(k)
                begin = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                    begin = min(begin, chunk.dictionary_page_offset)
                end = begin + chunk.total_compressed_size
                while begin < end:
                    size, length = _page(file, begin)
                    total, begin = total + size, begin + length
    return total


def _page(file: BinaryIO, begin: int) -> tuple[int, int]:
    """Bytes of a page once it is unpacked, and in the file, header included."""
    file.seek(begin)
    reader = _Compact(file.read(_HEADER_BYTES))
    fields = reader.struct()
    if fields.get(_SIZE, -1) < 0 or fields.get(_LENGTH, -1) < 0:
        raise ValueError(f"no page begins at byte {begin}")
    return fields[_SIZE], reader.at + fields[_LENGTH]


class _Compact:
    """Structs of Thrift's compact protocol, read for their integers."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """The integers of a struct by the numbers of their fields."""
        fields: dict[int, int] = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return fields
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            if kind in _INTEGERS:
                fields[number] = self._signed()
            elif kind > 2:  # 1 and 2 are the values of a boolean
                self._skip(kind, depth)

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _NESTING:
            raise ValueError("the header of a page is nested too deeply")
        if kind in _INTEGERS:
            self._unsigned()
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self._unsigned()  # which moves on itself
            self.at += length
        elif kind in _LISTS:
            head = self._byte()
            count = self._unsigned() if head >> 4 == 15 else head >> 4
            for _ in range(min(count, len(self._data))):
                self._skip(head & 15, depth + 1)
        elif kind == _STRUCT:
            self.struct(depth + 1)
        elif kind == _MAP:
            raise ValueError("a map, which no page has")
        else:
            self._byte()

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise ValueError("the header of a page does not end")
        self.at += 1
        return self._data[self.at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
