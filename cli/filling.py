"""Files written again with their missing cells filled."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dmf
from dmf.io.arrow import KeptColumns
from dmf.io.excel import WORKBOOKS
from dmf.io.filling import Text
from dmf.io.formats import KeptArray
from dmf.io.matrices import is_delimited
from dmf.io.reading import Entries, Matrix
from dmf.io.words import Words

_TABLES = (".csv", ".tsv", ".parquet", ".npy", *WORKBOOKS)  # suffixes of filled tables, beside that of a text
_COMPRESSED = (".gz", ".zst")


def names_filled_table(output: Path | None, file: Path) -> bool:
    """Whether `output` is to be `file` with its missing cells filled, rather than a model."""
    if output is None:
        return False
    suffix = output.suffix.lower()
    of_text = suffix not in ("", ".npz") and is_delimited(file) and suffix == file.suffix.lower()
    return suffix in (*_TABLES, *_COMPRESSED) or of_text


def kept_text(
    file: Path, filled: Path, source: Entries | Matrix, words: Sequence[Words] = ()
) -> Text | KeptColumns | KeptArray:
    """The text, columns or array to fill; raises unless it has missing cells, and can be written as `filled` says.

    Those of the columns of text in `words` count.
    """
    text, suffix = source.text, filled.suffix.lower()
    forms = {
        Text: "text (-o FILE.csv, or with the suffix of FILE)",
        KeptColumns: "Parquet or text (-o FILE.parquet, FILE.csv)",
    }
    form = next((form for kind, form in forms.items() if isinstance(text, kind)), "an array (-o FILE.npy)")
    fits = {
        ".parquet": isinstance(text, KeptColumns),
        ".npy": isinstance(text, KeptArray),
        **dict.fromkeys(WORKBOOKS, getattr(text, "sheet", None) is not None),
    }.get(suffix, isinstance(text, Text) or (isinstance(text, KeptColumns) and suffix not in _COMPRESSED))
    if text is None or not fits:
        raise dmf.errors.FileError(
            f"cannot write {filled} with missing cells filled: {file} is a {file.suffix} file, "
            + ("of which a model is written (-o model.npz), to ask with `dmf predict`." if text is None else
               f"which is written as {form}{' or as a workbook' * (getattr(text, 'sheet', None) is not None)}.")
        )  # fmt: skip
    if not len(text.holes) and not any((column.codes < 0).any() for column in words):
        raise dmf.errors.FileError(
            f"cannot write {filled} with missing cells filled: none is missing in {file}. To predict entries that it does not "
            "list, write a model (-o model.npz) and ask it with `dmf predict`; for an approximation of low rank use "
            "`dmf factorize`."
        )
    return text


def write_filled(
    filled: Path,
    text: Text | KeptColumns | KeptArray,
    values: np.ndarray,
    texts: Sequence[tuple[int, int, str]] = (),
) -> tuple[dict[str, Any], str]:
    """Write the text with values in its holes, and texts in its columns of text; what is told of it, as JSON and as a line."""
    if isinstance(text, KeptArray):
        text.write_filled(filled, values)
    else:
        text.write_filled(filled, values, texts)
    count = len(values) + len(texts)
    told = {"filled": str(filled), "cells_filled": count, "cells_left_empty": text.n_left_empty}
    empty = f"; {text.n_left_empty:,} stay empty, in rows or columns without any number" * bool(text.n_left_empty)
    return told, f"filled         {count:,} cells, in {filled}{empty}"


def table_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as csv."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
