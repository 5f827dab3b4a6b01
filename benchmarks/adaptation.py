"""Few-sample adaptation to rotated images: does Deep LoRA beat plain LoRA, and does it depend less on the rank?

    python benchmarks/adaptation.py                      # scikit-learn's digits, and FashionMNIST where its files are
    python benchmarks/adaptation.py --fashion-mnist DIR

20 paired seeds; see `dmf.experiments.adaptation` for the protocol. Each data set takes one process. Writes
results/adaptation.json and a picture for each.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
from cases import RESULTS, print_table, write_result

from dmf.experiments.adaptation import Adaptation, adaptation, draw_adaptation
from dmf.experiments.images import DEBIAN_FOLDER


def measured(data: Path | None, small: bool) -> tuple[Adaptation, float]:
    """The experiment on FashionMNIST in a folder, or on the digits, and its seconds."""
    begin = time.perf_counter()
    return adaptation(small, data=data), time.perf_counter() - begin


@click.command()
@click.option("--fashion-mnist", "folder", type=click.Path(path_type=Path), default=DEBIAN_FOLDER, show_default=True)
@click.option("--small", is_flag=True, help="Few seeds, no result written.")
def main(folder: Path, small: bool) -> None:
    """Run both data sets, print the tables, write results/adaptation.json and the pictures."""
    sources = {"digits": None, "fashion-mnist": folder}
    if not folder.is_dir():
        print(f"fashion-mnist is left out: no folder {folder}")
        del sources["fashion-mnist"]
    with ProcessPoolExecutor(2) as pool:
        runs = {name: pool.submit(measured, data, small) for name, data in sources.items()}
        results = {name: run.result() for name, run in runs.items()}
    for name, (result, seconds) in results.items():
        rows = result.rows()
        print(f"{result.title} ({seconds:.0f} s)")
        print_table(list(rows[0]), [list(map(str, row.values())) for row in rows])
        if not small:
            draw_adaptation(result, RESULTS / f"adaptation_{name}.png")
    if not small:
        write_result(
            "adaptation", {name: result.as_json() | {"seconds": seconds} for name, (result, seconds) in results.items()}
        )


if __name__ == "__main__":
    main()
