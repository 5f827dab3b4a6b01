"""Files written again with their missing cells filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import dmf
from dmf.io.arrow import KeptColumns
from dmf.io.filling import Text
from dmf.io.reading import Entries, Matrix

TABLES = (".csv", ".tsv", ".parquet")  # suffixes of filled tables


def kept_text(file: Path, filled: Path, source: Entries | Matrix) -> Text | KeptColumns:
    """The text or columns to fill; raises unless they have missing cells."""
    if source.text is None or (isinstance(source.text, Text) and filled.suffix.lower() == ".parquet"):
        raise dmf.errors.FileError(
            f"cannot write {filled} with missing cells filled: {file} is a {file.suffix} file. Text, workbooks and columns are "
            "filled as text (-o FILE.csv), columns of Parquet and databases as Parquet, too. Of others write a model (-o "
            "model.npz) and ask it with `dmf predict`."
        )
    if not len(source.text.holes):
        raise dmf.errors.FileError(
            f"cannot write {filled} with missing cells filled: none is missing in {file}. To predict entries that it does not "
            "list, write a model (-o model.npz) and ask it with `dmf predict`; for an approximation of low rank use "
            "`dmf factorize`."
        )
    return source.text


def write_filled(filled: Path, text: Text | KeptColumns, values: np.ndarray) -> tuple[dict[str, Any], str]:
    """Write the text with the values in its holes; what is told of it, as JSON and as a line."""
    text.write_filled(filled, values)
    told = {"filled": str(filled), "cells_filled": len(values), "cells_left_empty": text.n_left_empty}
    empty = f"; {text.n_left_empty:,} stay empty, in rows or columns without any number" * bool(text.n_left_empty)
    return told, f"filled         {len(values):,} cells, in {filled}{empty}"
