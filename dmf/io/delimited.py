"""Delimited text: finds the delimiter, streams the records, and names the line where something is wrong."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from dmf.errors import FileError
from dmf.io.blocks import Block, PlainBlock
from dmf.io.compressed import decompressed
from dmf.io.messages import Progress, shown, silent

BLANKS = "blanks"
# In order of preference: a comma also occurs within numbers ("3,5"), a blank within ids ("New York").
_DELIMITERS = {
    "\t": "tab-separated",
    "::": "separated by '::'",
    ";": "semicolon-separated",
    "|": "separated by '|'",
    ",": "comma-separated",
    BLANKS: "separated by blanks",
}
_SAMPLE_LINES, _SAMPLE_BYTES = 1_000, 2**18  # enough to see whether ids repeat
_LONGEST_LINE = 2**20  # of the sample: a binary file without line ends is not read into memory
_CHUNK = 2**23  # bytes that are read at once; of fewer, the ids would be looked up more often
_BLOCK = 2**9  # records that are split at once: more of them would leave the processor's caches
_OTHER_FORMATS = {
    b"PK\x03\x04": "it is a zip archive. If it is an npz file, let its name end in .npz; otherwise unpack it first.",
    b"\x93NUMPY": "it is a NumPy array. Let its name end in .npy.",
    b"PAR1": "it is a Parquet file. Let its name end in .parquet.",
    codecs.BOM_UTF16_LE: "it is UTF-16 text. Save it as UTF-8.",
    codecs.BOM_UTF16_BE: "it is UTF-16 text. Save it as UTF-8.",
}


class DelimitedText:
    """Records of a text file; made by `open_delimited`.

    They are read once, by `blocks`, or one after the other by iterating, which gives the line of each, too. Blank lines are
    skipped.

    Attributes
    ----------
    first : list of str
        The first record, a header perhaps; stripped.
    single : bool
        Whether it is the only record.
    width : int
        Number of columns.
    sample : list of lists of str
        The first records of that width, the very first included; stripped.
    delimiter : str
        The character or characters between fields, or `BLANKS`.
    head : bytes
        What comes before the first record: byte order mark, comments, blank lines.
    n_skipped : int
        Records left out of the iteration: 1 with a header, 2 with one and a line of units.
    size : int
        Bytes of the file; 0 where that is not known.
    progress : callable
        Called while it is read.
    sheet : str or None
        Of the workbook that the text was made from.
    """

    sheet: str | None = None

    def __init__(
        self,
        path: os.PathLike,
        file: BinaryIO,
        columns: Sequence[str],
        plausible: Callable[[list[str]], bool],
        skip: int = 0,
        dialects: Mapping[str, str] = _DELIMITERS,
    ) -> None:
        self.path, self._line, self._ended = path, 0, 0  # the last line read, and the last that ended a record
        self._file, self._start, self.size = file, 1, 0
        self.progress: Progress = silent
        self._kept: list[str] | None = None
        self._sample = self._read_sample(skip)
        self._line = self._start - 1
        lines = list(self._decoded([b"".join(self._sample)]))
        self._dialects = dialects
        self.delimiter = max(dialects, key=lambda delimiter: _fit(lines, delimiter, len(columns), plausible))
        records = _first_records(lines, self.delimiter)
        if not records:
            raise FileError(f"cannot read {path}: it holds no {' and '.join(columns)}, only blank lines or comments.")
        self.first = [field.strip() for field in records[0]]
        self.single, self.width = len(records) == 1, len(self.first)
        if self.width < len(columns):
            found = "1 column" if self.width == 1 else f"{self.width} columns"
            raise self.error(
                f"{found} ({', '.join(map(shown, self.first))}), but {len(columns)} are needed: {', '.join(columns)}. "
                "Separate them by tabs, '::', ',', ';', '|' or blanks. If this is a title, leave it out (--skip).",
                self._start,
            )
        self.sample = [[field.strip() for field in record] for record in records if len(record) == self.width]
        self.n_skipped = 0
        self._line = self._start - 1

    def keep_lines(self) -> list[str]:
        """A list that grows by the text read from now on, as it stands in the file."""
        self._kept = []
        return self._kept

    def skip_header(self) -> None:
        """Leave the first record out."""
        self.n_skipped = 1

    def skip_units(self) -> None:
        """Leave the record below the header out, too."""
        self.n_skipped = 2

    def dialect(self) -> str:
        """How fields are separated, for messages."""
        return self._dialects[self.delimiter]

    def comments(self) -> list[str]:
        """Note on the comment lines at the top, if any."""
        return [f"{self._comments} comment lines at the top skipped"] if self._comments else []

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for block in self.blocks():
            yield from zip(block.lines, block.records, strict=True)

    def blocks(self) -> Iterator[Block]:
        """The records, many at a time; what is before an error is given before it is raised."""
        to_skip = self.n_skipped
        for block in self._blocks():
            while to_skip and len(block):
                block, to_skip = block.without_first(), to_skip - 1
            if len(block):
                yield block

    def _blocks(self) -> Iterator[Block]:
        chunks = self._chunks()
        for chunk in chunks:
            block = None
            if self.delimiter != BLANKS:
                block = PlainBlock.of(chunk, self.delimiter, self.width, self._line + 1)
            if block is None:
                yield from self._split_blocks(itertools.chain([chunk], chunks))
                continue
            if self._kept is not None:
                self._kept.append(chunk.decode())
            self._line += len(block)
            yield block

    def _split_blocks(self, chunks: Iterable[bytes]) -> Iterator[Block]:
        """The records in the first part of the file, whatever their quotes, and in further ones while a quoted field goes on."""
        splitter = _split(self._decoded(chunks), self.delimiter, strict=True)
        read, failure = True, None
        while read and failure is None:
            first, records = self._line + 1, []
            try:
                for record in itertools.islice(splitter, _BLOCK):
                    records.append(record)
                    self._ended = self._line
            except csv.Error as error:
                failure = self._quoting_error(error, _starts(first, records)[-1])
            except FileError as error:
                failure = error
            read = bool(records)
            lines: Sequence[int] = range(first, first + len(records))
            if self._line + 1 != first + len(records):  # fields go over several lines
                lines = _starts(first, records)[:-1]
            if not set(map(len, records)) <= {self.width}:
                records, lines, failure = self._of_one_width(records, lines, failure)
            if records:
                yield Block(records, lines)
        if failure is not None:
            raise failure

    def error(self, reason: str, line: int | None = None) -> FileError:
        """FileError that names the file and a line, the last one read unless given."""
        return FileError(f"cannot read {self.path}, line {line or self._line}: {reason}")

    def _of_one_width(
        self, records: list[list[str]], lines: Sequence[int], failure: FileError | None
    ) -> tuple[list[list[str]], list[int], FileError | None]:
        """The records without blank ones, up to the first of another width, and the error that this one is."""
        kept = []
        for line, record in zip(lines, records, strict=True):
            if len(record) == self.width:
                kept.append((record, line))
            elif _is_filled(record):
                # Most often a delimiter or a decimal comma inside a field, which would shift the columns unnoticed.
                failure = self.error(
                    f"{len(record)} columns, but the first record has {self.width}. Quote fields that contain the delimiter "
                    f"(the file was taken as {self.dialect()}). If lines at the top are a title, leave them out (--skip).",
                    line,
                )
                break
        return [record for record, _ in kept], [line for _, line in kept], failure

    def _quoting_error(self, error: csv.Error, first: int) -> FileError:
        """FileError for a record whose quotes opened on line `first`, wherever they then led."""
        noticed = f" (noticed on line {self._line})" if self._line > first else ""
        return self.error(
            f"{error}{noticed}. Check the quotes there, and whether each that is opened is closed.", first
        )

    def _read_sample(self, skip: int) -> list[bytes]:
        sample: list[bytes] = []
        size, self._comments, self.head = 0, 0, b""
        for number, raw in enumerate(iter(lambda: self._file.readline(_LONGEST_LINE), b""), 1):
            if number == 1:
                self._check_start(raw)
                if raw.startswith(codecs.BOM_UTF8):
                    self.head, raw = codecs.BOM_UTF8, raw.removeprefix(codecs.BOM_UTF8)
            self._line = number
            if b"\0" in raw:
                raise self.error("no text (it has NUL bytes). Pass csv, tsv, npy, npz, mtx or parquet.")
            if len(raw) >= _LONGEST_LINE:
                raise self.error(
                    f"a line of {_LONGEST_LINE} bytes or more, the longest that is read: a file without line ends would fill "
                    "the memory. End lines with \\n or \\r\\n; pass a table as wide as this as .npy."
                )
            if b"\r" in raw.strip():
                raise self.error("a carriage return within the line. End lines with \\n or \\r\\n.")
            skipped = number <= skip or not raw.strip() or raw.startswith((b"#", b"%", b"sep="))
            if not sample and skipped:
                self._comments += raw.startswith((b"#", b"%"))
                self._start = number + 1
                self.head += raw
                continue
            sample.append(raw)
            size += len(raw)
            if len(sample) == _SAMPLE_LINES or size > _SAMPLE_BYTES:
                break
        return sample

    def _check_start(self, raw: bytes) -> None:
        for magic, reason in _OTHER_FORMATS.items():
            if raw.startswith(magic):
                raise FileError(f"cannot read {self.path} as text: {reason}")
        if raw[:14].lower() == b"%%matrixmarket":
            raise FileError(f"cannot read {self.path} as text: it is a Matrix Market file. Let its name end in .mtx.")

    def _chunks(self) -> Iterator[bytes]:
        """The file in parts of whole lines."""
        chunk = b"".join(self._sample)
        read = len(chunk)
        yield chunk
        while chunk := self._file.read(_CHUNK):
            chunk += b"" if chunk.endswith(b"\n") else self._file.readline()
            read += len(chunk)
            yield chunk
            self.progress(self._line, min(read / self.size, 1.0) if self.size else 0.0)

    def _decoded(self, chunks: Iterable[bytes]) -> Iterator[str]:
        """The lines of parts of the file, which are counted, up to the first part that ends with a record."""
        for chunk in chunks:
            try:
                text = chunk.decode()
            except UnicodeDecodeError as error:
                *before, start = chunk[: error.start].split(b"\n")
                raise self.error(
                    f"no UTF-8 text (byte {chunk[error.start]:#04x} at position {len(start)}). Convert the file to UTF-8.",
                    self._line + 1 + len(before),
                ) from error
            if self._kept is not None:
                self._kept.append(text)
            # Other characters that end lines for Python do not end them here.
            for line in io.StringIO(text, newline="\n"):
                self._line += 1
                yield line
            if self._ended == self._line:
                return


@contextlib.contextmanager
def open_delimited(
    path: os.PathLike, columns: Sequence[str], plausible: Callable[[list[str]], bool], skip: int = 0
) -> Iterator[DelimitedText]:
    """Open a delimited text file (UTF-8, with or without byte order mark), perhaps compressed by gzip or zstd.

    The delimiter is the one of tab, ``::``, ``;``, ``|``, ``,`` and blanks that gives the most of the first lines enough
    columns and makes the most of them plausible. Fields may be quoted by ``"`` where the delimiter is one character.
    Lines at the top that start with ``#`` or ``%`` are comments, as is the line ``sep=`` of spreadsheets.

    Parameters
    ----------
    path : path
    columns : sequence of str
        Names of the columns needed, for messages; more may follow in the file.
    plausible : callable
        Whether a record with enough fields looks as it should.
    skip : int
        Lines at the top to leave out.

    Raises
    ------
    FileError
        Inside the ``with`` block too, when a record cannot be read; the message names file and line.
    """
    with open(path, "rb") as file, decompressed(path, file) as content:  # noqa: PTH123 - also takes pipes
        text = DelimitedText(path, content, columns, plausible, skip)
        if content is file:
            text.size = os.fstat(file.fileno()).st_size
        yield text


def _starts(first: int, records: Iterable[list[str]]) -> list[int]:
    """The lines on which records begin, the first on line `first`, and on which the one after them does."""
    lengths = (1 + sum(field.count("\n") for field in record) for record in records)
    return list(itertools.accumulate(lengths, initial=first))


def _is_filled(record: list[str]) -> bool:
    return any(field.strip() for field in record)


def _split(lines: Iterator[str], delimiter: str, strict: bool) -> Iterator[list[str]]:
    if delimiter == BLANKS:
        return (line.split() for line in lines)
    if len(delimiter) > 1:
        return (line.rstrip("\r\n").split(delimiter) for line in lines)
    # Strict, or one stray quote would swallow all lines up to the next one.
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def _first_records(lines: list[str], delimiter: str) -> list[list[str]]:
    records = []
    with contextlib.suppress(csv.Error):  # met again, with its line, when the file is read in earnest
        for record in _split(iter(lines), delimiter, strict=False):
            if _is_filled(record):
                records.append(record)  # noqa: PERF401 - what comes before an error is kept
    return records


def _fit(lines: list[str], delimiter: str, columns: int, plausible: Callable[[list[str]], bool]) -> tuple:
    """How well a delimiter explains the first lines; compared as a tuple."""
    records = _first_records(lines, delimiter)
    enough = [record for record in records if len(record) >= columns]
    if not enough:
        return 0.0, 0, False, max((len(record) for record in records[:1]), default=0)
    share = len(enough) / len(records)
    return share, sum(map(plausible, enough)), len({len(record) for record in records}) == 1, 0
