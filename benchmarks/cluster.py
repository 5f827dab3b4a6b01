"""What does a Dask cluster cost against one process, on the same machine, and how does Spark's ALS compare?

    python benchmarks/cluster.py
    python benchmarks/cluster.py --small
    python benchmarks/cluster.py --spark 10       # needs pyspark and a Java runtime

24,000,000 ratings of `problems.ratings` (small: 2,400,000), single precision, width 16 and offsets. One process with two threads,
and a LocalCluster of two workers with one thread each, sweep in turn, so that a busy machine slows both alike: the ratio of the
medians is printed (target: at most 1.4), beside the seconds that the start of the cluster and the placing of the data take, and
the bytes of a sweep at the client against the model of `dmf.observations.distributed` (target: within 1.2). Then both complete:
held-out errors (target: the same to 1e-6).
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import click
import numpy as np
import problems
from cases import print_table, write_result

WIDTH, LOW, HIGH = 16, 0.5, 5
SIZES = {False: {}, True: {"n": 2_500_000, "n_users": 50_000, "n_items": 20_000, "n_test": 100_000}}


def swept(observations: Any) -> Any:
    """Seconds of a sweep, again and again, be it settled or not; the first, which compiles and places, is not counted."""
    from dmf.solvers.hierarchical import HierarchicalBayes

    solver = HierarchicalBayes(WIDTH)
    data = solver.prepare(observations, None)
    state = solver.advance(data, solver.init(data, None), 1)[0]
    while True:
        state = replace(state, finished=None)
        begin = time.perf_counter()
        state = solver.advance(data, state, 1)[0]
        yield time.perf_counter() - begin


def error(recovery: Any, made: problems.Case) -> float:
    """Root mean square of the errors on the held-out ratings."""
    first = made["n_test"]
    off = np.clip(recovery.predict(made["rows"][:first], made["cols"][:first]), LOW, HIGH) - made["values"][:first]
    return float(np.sqrt(np.mean(off.astype(float) ** 2)))


def spark_error(made: problems.Case, iterations: int) -> dict[str, float]:
    """Seconds and held-out error of Spark's ALS on two cores."""
    import pandas as pd
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    frame = pd.DataFrame({name: made[name] for name in ("rows", "cols", "values")})
    train, test = (session.createDataFrame(part).cache() for part in (frame[made["n_test"] :], frame[: made["n_test"]]))
    train.count(), test.count()
    begin = time.perf_counter()
    als = ALS(rank=WIDTH, maxIter=iterations, regParam=0.05, userCol="rows", itemCol="cols", ratingCol="values")
    model = als.fit(train)
    seconds = time.perf_counter() - begin
    predicted = model.transform(test).select("prediction", "values").toPandas().dropna()
    off = np.clip(predicted["prediction"], LOW, HIGH) - predicted["values"]
    session.stop()
    return {"seconds": seconds, "error": float(np.sqrt(np.mean(off.astype(float) ** 2)))}


@click.command()
@click.option("--small", is_flag=True, help="A tenth of the ratings.")
@click.option("--sweeps", default=5, show_default=True, help="That are timed, of each.")
@click.option("--spark", "iterations", type=int, help="Run so many iterations of Spark's ALS, too.")
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(small: bool, sweeps: int, iterations: int | None, no_save: bool) -> None:
    """Compare sweeps, completions and bytes; write results/cluster.json."""
    from distributed import Client, LocalCluster

    import dmf
    from dmf.observations import DistributedEntries

    made = problems.ratings(**SIZES[small])
    first = made["n_test"]
    arrays = (made[name][first:] for name in ("rows", "cols", "values"))
    result: dict[str, Any] = {"samples": made["rows"].size - first, "shape": list(made["shape"])}
    with dmf.threads(min(2, dmf.arrays.threads.thread_count())):
        here = dmf.SampledEntries(*arrays, made["shape"])
        begin = time.perf_counter()
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            client.wait_for_workers(2)
            result["start"] = time.perf_counter() - begin
            begin = time.perf_counter()
            there = DistributedEntries.from_entries(here, client)
            there.counts(0), there.counts(1)
            result["placing"] = time.perf_counter() - begin
            one, other = swept(here), swept(there)
            next(one), next(other)
            before = there.traffic
            seconds = [(next(one), next(other)) for _ in range(sweeps)]
            here_seconds, there_seconds = (statistics.median(part) for part in zip(*seconds, strict=True))
            moved = {way: (there.traffic[way] - before[way]) / sweeps / 1e6 for way in before}
            # factor, its 1, offset; variances; on the way back as much; means of the priors
            model = 4 * sum(made["shape"]) * (WIDTH + 2) / 1e6
            result |= {"here": here_seconds, "there": there_seconds, "moved": moved}
            result["model"] = {"sent": 3 * model, "received": 2 * model}
            rows = []
            for name, data in (("one process", here), ("cluster", there)):
                begin = time.perf_counter()
                recovery = dmf.complete(data, WIDTH, offsets=True)
                result[name] = {"seconds": time.perf_counter() - begin, "error": error(recovery, made)}
                rows.append([name, *(f"{result[name][key]:.6g}" for key in ("seconds", "error")), recovery.nit])
    if iterations:
        result["spark"] = spark_error(made, iterations)
        rows.append(["Spark ALS", *(f"{result['spark'][key]:.6g}" for key in ("seconds", "error")), iterations])
    print(f"start {result['start']:.2f} s, placing {result['placing']:.2f} s")
    print(f"sweep: {here_seconds:.3f} s here, {there_seconds:.3f} s there, ratio {there_seconds / here_seconds:.2f}")
    for way in moved:
        print(f"{way}: {moved[way]:.1f} MB a sweep, by the model {result['model'][way]:.1f}")
    print_table(["", "s", "held-out error", "sweeps"], rows)
    if not no_save:
        write_result("cluster", result)


if __name__ == "__main__":
    sys.exit(main())
