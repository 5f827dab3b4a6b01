"""Excel workbooks: one of their sheets, read as delimited text."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

from dmf.errors import FileError
from dmf.io.arrays import most_bytes
from dmf.io.delimited import DelimitedText
from dmf.io.messages import listed, package, shown
from dmf.io.roles import Stated


def open_sheet(
    path: Path, columns: tuple[str, ...], plausible: Callable[[list[str]], bool], stated: Stated
) -> DelimitedText:
    """The cells of a sheet, the first unless stated, as text whose lines are its rows; formulas are what they gave when saved."""
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
        writer.writerows(workbook[wanted].iter_rows(values_only=True))
        workbook.close()
    except (FileError, MemoryError):
        raise
    except Exception as error:  # openpyxl raises whatever its parsers do
        if getattr(error, "errno", None) is not None:  # of the operating system
            raise
        raise FileError(f"cannot read {path}: no intact Excel workbook ({error}). Save it again, or as csv.") from error
    file = io.BytesIO(text.getvalue().encode())
    return DelimitedText(path, file, columns, plausible, stated.skip, {",": f"Excel, sheet {shown(wanted)}"})
