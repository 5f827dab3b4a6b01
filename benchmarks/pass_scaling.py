"""Is the cost of a pass linear in the number of samples?

One pass (residual, loss, both products), one sweep of ridge regressions of both factors as variational Bayes makes it, and
the construction of `SampledEntries` from shuffled triplets, for 100,000 to 25,000,000 samples of matrices with 150 samples
a row and 400 a column, as in large ratings files. Prints nanoseconds a sample and draws results/pass_scaling.png.
"""

from __future__ import annotations

import click
import matplotlib.pyplot as plt
import numpy as np
from cases import RESULTS, positions, print_table, write_result
from ceilings import best_seconds

import dmf
from dmf.arrays.threads import thread_count

WIDTH = 16
COUNTS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 25_000_000)
NAMES = ("one pass", "sweep of ridge regressions", "construction")


def measure(count: int) -> dict[str, float]:
    """Seconds of each piece of work; best of some rounds."""
    generator = np.random.default_rng(count)
    shape = count // 150, count // 400
    rows, cols = positions(generator, shape, count)
    order = generator.permutation(count)
    rows, cols, values = rows[order], cols[order], generator.standard_normal(count)
    left, right = (generator.standard_normal((d, WIDTH)) for d in shape)
    penalty, spread = np.ones(WIDTH), [np.full((d, WIDTH), 0.1) for d in shape]
    observations = dmf.SampledEntries(rows, cols, values, shape)

    def sweep():
        observations.ridge(0, right, penalty, spread[1])
        observations.ridge(1, left, penalty, spread[0])

    rounds = 3 if count > 5_000_000 else 9
    wide = np.ascontiguousarray(right.T)
    work = (
        lambda: observations.evaluate(left, wide),
        sweep,
        lambda: dmf.SampledEntries(rows, cols, values, shape),
    )
    return {name: best_seconds(call, rounds) for name, call in zip(NAMES, work, strict=True)}


def draw(counts, seconds: dict[str, list[float]]) -> None:
    """Seconds against samples, both logarithmic, with lines of slope 1."""
    figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for name, times in seconds.items():
        (line,) = axes.loglog(counts, times, "o-", label=name)
        through = np.median(np.array(times) / counts)
        axes.loglog(counts, through * np.array(counts), ":", color=line.get_color(), linewidth=1)
    axes.set(xlabel="samples", ylabel="seconds", title=f"width {WIDTH}, float64; dotted: proportional")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(RESULTS / "pass_scaling.png", dpi=130)


@click.command()
@click.option("--quick", is_flag=True, help="Up to 1,000,000 samples; writes nothing.")
def main(quick: bool) -> None:
    """Measure, print, draw, and write results/pass_scaling.json."""
    counts = [count for count in COUNTS if not quick or count <= 1_000_000]
    measured = [measure(count) for count in counts]
    seconds = {name: [case[name] for case in measured] for name in NAMES}
    print(f"nanoseconds a sample, {thread_count()} cores")
    table = [[f"{c:,}", *(1e9 * case[name] / c for name in NAMES)] for c, case in zip(counts, measured, strict=True)]
    print_table(["samples", *NAMES], table)
    if not quick:
        draw(counts, seconds)
        write_result("pass_scaling", {"threads": thread_count(), "width": WIDTH, "samples": counts, "seconds": seconds})


if __name__ == "__main__":
    main()
