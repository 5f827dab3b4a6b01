"""The papers' figures at full size: published numbers beside ours, over several seeds.

    python benchmarks/paper_figures.py                     # half an hour of one core, without sensing
    python benchmarks/paper_figures.py --only sensing --seeds 1

What `dmf reproduce all --seeds 5` does, in pieces: rows of experiments that are not run again stay in the result. The
measurements of sensing take 1.3 GB, and an iteration half a second.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import click
from cases import RESULTS, print_table, write_result

from dmf.experiments.everything import ALL, reproduce_all


@click.command()
@click.option("--seeds", default=5, show_default=True)
@click.option("--only", type=click.Choice(ALL), multiple=True, default=[name for name in ALL if name != "sensing"])
def main(seeds: int, only: tuple[str, ...]) -> None:
    """Print a table for each experiment as it ends, and put it into results/paper_figures.json."""
    for name in only:
        with tempfile.TemporaryDirectory() as folder:
            rows = reproduce_all(Path(folder), seeds=range(seeds), names=(name,))["table"]
        columns = "published", "ours", "ratio", "verdict"
        print_table([name, *columns], [[row["what"], *(row[column] for column in columns)] for row in rows])
        others = [row for row in _kept() if row["experiment"] != name]
        write_result("paper_figures", {"table": others + [_as_json(row) | {"seeds": seeds} for row in rows]})


def _kept() -> list[dict[str, Any]]:
    path = RESULTS / "paper_figures.json"
    return json.loads(path.read_text())["table"] if path.exists() else []


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """The row, with null for a number that was not reached."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


if __name__ == "__main__":
    main()
