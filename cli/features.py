"""Features of rows and columns from files, for `dmf complete`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dmf.io.features import FeatureTable, read_feature_file
from dmf.io.reading import Entries
from dmf_cli.common import InputFile


def features_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name files of features."""
    for side, ids in (("column", "columns"), ("row", "rows")):
        command = click.option(
            f"--{side}-features", type=InputFile(),
            help=f"Delimited text about {ids}: ids, then numbers or categories (a|b: both). Ids without entries are "
            "predicted, too.",
        )(command)  # fmt: skip
    return command


def with_features(
    source: Entries, row_features: Path | None, column_features: Path | None, widen: bool
) -> tuple[Entries, dict[str, FeatureTable]]:
    """The entries and what `dmf.complete` is told of rows and columns; those of which only features are known join the matrix."""
    given: dict[str, FeatureTable] = {}
    for side, (argument, path) in enumerate((("row_features", row_features), ("column_features", column_features))):
        if path is None:
            continue
        ids = source.col_ids if side else source.row_ids
        known = dict.fromkeys(map(str, range(source.shape[side])) if ids is None else ids)
        given[argument] = table = read_feature_file(path, known, argument)
        assert table.ids is not None
        more = [name for name in table.ids if name not in known]
        if widen and ids is not None and len(more) < len(table.ids):
            d1, d2 = source.shape
            if side == 0:
                source = replace(source, shape=(d1 + len(more), d2), row_ids=(*ids, *more))
            else:
                source = replace(source, shape=(d1, d2 + len(more)), col_ids=(*ids, *more))
    return source, given
