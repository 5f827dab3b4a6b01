"""How much memory do entries take that lie on the disk, and what does a sweep over them cost?

    python benchmarks/out_of_core.py                # 250,000,000 samples, two workers of 2 GB
    python benchmarks/out_of_core.py --samples 25000000 --limit 1.5GB

Ratings of a skewed popularity are written as Parquet, 2,000,000 a file, 12 bytes each; the workers write 60 more. A LocalCluster
of two workers with one thread each reads them: seconds until all blocks are placed. Then sweeps over them, both sides fitted at
width 18 with variances, alternate with sweeps of one process with two threads over a tenth of them in memory. Printed: the ratio
of the samples a second (target: at least 0.5), and the peak of the resident sets of all processes together before the sweeps in
memory begin (target: 4 GB).
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from cases import print_table, write_result

WIDTH, STEP, NAMES = 18, 2_000_000, ("user", "item", "stars")


def generate(samples: int, folder: Path) -> None:
    """Write ratings: a signal of rank 4, and noise of standard deviation 0.6."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    sizes, generator = (samples // 625 + 1000, samples // 2500 + 1000), np.random.default_rng(0)
    factors = [generator.standard_normal((size, 4), np.float32) / 2 for size in sizes]
    orders = [generator.permutation(size).astype(np.int32) for size in sizes]
    for first in range(0, samples, STEP):
        count = min(STEP, samples - first)
        ids = [order[(order.size * generator.random(count) ** 2).astype(int)] for order in orders]
        signal = np.einsum("ij,ij->i", *(factor[index] for factor, index in zip(factors, ids, strict=True)))
        stars = 3.5 + signal + np.float32(0.6) * generator.standard_normal(count, np.float32)
        table = pa.table(dict(zip(NAMES, (*ids, stars), strict=True)))
        parquet.write_table(table, folder / f"{first // STEP:06d}.parquet", compression="none", use_dictionary=False)


class Peak(threading.Thread):
    """Largest sum of the resident sets of this process and its children so far, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0

    def run(self) -> None:
        import psutil

        this = psutil.Process()
        while True:
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
            self.megabytes = max(self.megabytes, total / 1e6)
            time.sleep(0.2)


def swept(observations: Any) -> Any:
    """Seconds of a sweep, again and again; the first, which compiles, is not counted."""
    generator = np.random.default_rng(0)
    factors = [generator.standard_normal((size, WIDTH), np.float32) for size in observations.shape]
    while True:
        begin = time.perf_counter()
        for side in (0, 1):
            other = factors[1 - side]
            fit = observations.ridge(
                side, other, np.ones(WIDTH, np.float32), np.abs(other) / 100, means=0 * factors[side]
            )
            factors[side] = np.ascontiguousarray(fit.rows)
        yield time.perf_counter() - begin


def in_memory(folder: Path, files: int) -> Any:
    """The entries of some files, in arrays."""
    import pyarrow.parquet as parquet

    import dmf

    tables = [parquet.read_table(path) for path in sorted(folder.iterdir())[:files]]
    rows, cols, values = (np.concatenate([table[name].to_numpy() for table in tables]) for name in NAMES)
    return dmf.SampledEntries(rows, cols, values, (int(rows.max()) + 1, int(cols.max()) + 1))


@click.command()
@click.option("--samples", default=250_000_000, show_default=True)
@click.option("--limit", default="2GB", show_default=True, help="Memory of each of the two workers.")
@click.option("--sweeps", default=3, show_default=True, help="That are timed, of each.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the files go for the time; the system's unless given."
)
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(samples: int, limit: str, sweeps: int, folder: Path | None, no_save: bool) -> None:
    """Place, sweep, compare; write results/out_of_core.json."""
    import dask
    from distributed import Client, LocalCluster

    import dmf
    from dmf.observations import DistributedEntries
    from dmf.observations.stored import remove_files

    peak = Peak()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        data = Path(place, "data")
        data.mkdir()
        generate(samples, data)
        peak.start()
        with (
            dask.config.set({"distributed.scheduler.work-stealing": False}),
            LocalCluster(
                n_workers=2, threads_per_worker=1, memory_limit=limit, dashboard_address=":0", local_directory=place
            ) as cluster,
            Client(cluster) as client,
            dmf.threads(min(2, dmf.arrays.threads.thread_count())),
        ):
            begin = time.perf_counter()
            there = DistributedEntries.from_parquet(data, *NAMES, client)
            there.counts(0), there.counts(1)
            placing = time.perf_counter() - begin
            far = swept(there)
            next(far)
            megabytes = peak.megabytes
            here = in_memory(data, min(25_000_000, samples // 10) // STEP or 1)
            near = swept(here)
            next(near)
            seconds = zip(*((next(near), next(far)) for _ in range(sweeps)), strict=True)
            sizes = here.n_measurements, there.n_measurements
            rates = [size / statistics.median(part) for size, part in zip(sizes, seconds, strict=True)]
            client.run(remove_files)
    result = {"samples": samples, "placing": placing, "peak_mb": megabytes, "limit": limit}
    result |= {"in_memory": rates[0], "on_disk": rates[1]}
    print_table(
        ["samples", "placed in s", "peak MB", "samples/s in memory", "on disk", "ratio"],
        [
            [
                f"{samples:,}",
                f"{placing:.0f}",
                f"{megabytes:,.0f}",
                *(f"{rate:.4g}" for rate in rates),
                f"{rates[1] / rates[0]:.2f}",
            ]
        ],
    )
    if not no_save:
        write_result("out_of_core", result)


if __name__ == "__main__":
    main()
