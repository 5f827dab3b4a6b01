"""Excel workbooks: one of their sheets, read as delimited text, and written with further cells."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dmf.errors import FileError
from dmf.io.arrays import most_bytes
from dmf.io.cells import Stated
from dmf.io.delimited import DelimitedText
from dmf.io.messages import listed, package, shown
from dmf.io.writing import write_atomically

WORKBOOKS = (".xlsx", ".xlsm")


def open_sheet(
    path: Path, columns: tuple[str, ...], plausible: Callable[[list[str]], bool], stated: Stated
) -> DelimitedText:
    """The cells of a sheet, the first unless stated, as text, each row a line; formulas are what they gave when saved."""
    openpyxl = package("openpyxl", path, "excel")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > most_bytes(path):
            raise FileError(
                f"cannot read {path}: it unpacks to {size} bytes, but at most {most_bytes(path)} are read from a file of this "
                "size. Save it as csv."
            )
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        names = workbook.sheetnames
        wanted = names[0] if stated.sheet is None else stated.sheet
        if wanted not in names:
            raise FileError(f"cannot read {path}: no sheet {shown(wanted)}, but {', '.join(listed(names))} (--sheet).")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = [list(map(_on_one_line, row)) for row in workbook[wanted].iter_rows(values_only=True)]
        width = max(map(len, rows), default=0)
        writer.writerows(
            [*row, *[None] * (width - len(row))] if any(cell != "" for cell in row) else [] for row in rows
        )
        workbook.close()
    except (FileError, MemoryError):
        raise
    except Exception as error:  # openpyxl raises whatever its parsers do
        if getattr(error, "errno", None) is not None:  # of the operating system
            raise
        raise FileError(f"cannot read {path}: no intact Excel workbook ({error}). Save it again, or as csv.") from error
    file = io.BytesIO(text.getvalue().encode())
    found = DelimitedText(path, file, columns, plausible, stated.skip, {",": f"Excel, sheet {shown(wanted)}"})
    found.sheet = wanted
    return found


def _on_one_line(cell: object) -> object:
    if isinstance(cell, str):
        return " ".join(cell.splitlines())
    if isinstance(cell, float):
        return f"{cell:.15g}"  # as many digits as Excel has
    return "" if cell is None else cell


def write_sheet(
    path: str | os.PathLike, source: Path, sheet: str, cells: Iterable[tuple[tuple[int, int], float | str]]
) -> None:
    """Write a workbook again with numbers and texts in cells of a sheet.

    All other cells, formulas and formats stay; openpyxl does not keep charts and pictures.

    Parameters
    ----------
    path : path
    source : path
        The workbook that was read.
    sheet : str
    cells : iterable of ((row, column), number or text)
        Both counted from 1.

    Raises
    ------
    FileError
        If a cell is merged with others, or a file cannot be read or written.
    """
    openpyxl = package("openpyxl", source, "excel")
    workbook = openpyxl.load_workbook(source, keep_vba=source.suffix.lower() == ".xlsm")
    for (row, column), content in cells:
        cell = workbook[sheet].cell(row, column)
        if isinstance(cell, openpyxl.cell.cell.MergedCell):
            raise FileError(f"cannot fill {cell.coordinate} of {source}: it is merged with others. Split them.")
        cell.value = int(content) if not isinstance(content, str) and content.is_integer() else content
        if isinstance(content, str):
            cell.data_type = "s"  # no formula, whatever it begins with
    write_atomically(path, workbook.save)
