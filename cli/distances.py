"""dmf distances: fill in the distances between points."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import dmf
from dmf.completion.distances import GEOMETRIES
from dmf.io.matrices import read_entries
from dmf.io.writing import check_suffix, check_writable, write_text
from dmf_cli.common import InputFile, check_distinct, common_options, emit, note
from dmf_cli.filling import table_text
from dmf_cli.reading import reading_options


@click.command()
@click.argument("file", type=InputFile())
@click.option(
    "--geometry", type=click.Choice(GEOMETRIES), default="euclidean", show_default=True, help="Of the points."
)
@click.option("--dimension", type=click.IntRange(min=1), default=2, show_default=True, help="Coordinates of a point.")
@click.option(
    "--radius", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
    help="Of curvature of the hyperbolic space, in the unit of the distances.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Table of distances to write (.csv)."
)
@click.option("--points", type=click.Path(path_type=Path), help="Table of coordinates to write (.csv).")
@reading_options
@common_options
def distances(file, geometry, dimension, radius, output, points, stated, seed, as_json):
    """Fill in the distances between points, some of which are in FILE.

    FILE is delimited text with the columns point, point and distance, or a square table with missing cells. The completed table
    has all pairs; those in FILE are kept.
    """
    check_distinct(FILE=file, the_table=output, the_points=points)
    for path in (output, points):
        if path is not None:
            check_suffix(path, "table", (".csv",))
            check_writable(path)
    source = read_entries(file, **stated)
    for sentence in source.notes:
        note(sentence, as_json)
    known, names = _between_points(source)
    found = dmf.complete_distances(known, geometry, dimension, radius=radius, seed=seed)
    write_text(
        output, table_text(["", *names], [[name, *row] for name, row in zip(names, found.filled(), strict=True)])
    )
    if points is not None:
        axes = [f"x{k}" for k in range(found.points.shape[1])]
        write_text(
            points, table_text(["", *axes], [[name, *row] for name, row in zip(names, found.points, strict=True)])
        )
    report = {"file": str(file), "output": str(output), "points": None if points is None else str(points),
              "geometry": geometry, "dimension": dimension, "radius": radius, "n_points": len(names),
              "n_distances": known.n_measurements, "residual": found.residual, "notes": list(source.notes)}  # fmt: skip
    lines = [
        f"{known.n_measurements:,} distances between {len(names):,} points",
        f"residual       {found.residual:.4g}",
    ]
    emit(as_json, report, [*lines, f"distances      {output}", *([f"points         {points}"] if points else [])])


def _between_points(source) -> tuple[dmf.SampledEntries, list[str]]:
    """The distances in one numbering of the points, and their names: rows and columns that are named alike are one point."""
    if source.row_ids is None or source.col_ids is None:
        size = max(source.shape)
        stated = source.row_ids or source.col_ids
        names = list(stated) if stated and len(stated) == size else [str(k) for k in range(size)]
        return dmf.SampledEntries(source.rows, source.cols, source.values, (size, size)), names
    names = list(dict.fromkeys([*source.row_ids, *source.col_ids]))
    place = {name: k for k, name in enumerate(names)}
    rows, cols = (
        np.array([place[name] for name in ids])[index]
        for ids, index in ((source.row_ids, source.rows), (source.col_ids, source.cols))
    )
    return dmf.SampledEntries(rows, cols, source.values, (len(names), len(names))), names
