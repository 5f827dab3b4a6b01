"""How close does the fused pass over sampled entries come to what the machine can do?

The model, for m samples, factors of d1 and d2 rows padded to w numbers of b bytes, on all cores:

    flops: 8 w m (two products, one for each order of the samples, and two sums), over the rate of a product of large matrices
    bytes: 4 w b m in rows of w numbers, for each side once at random from all rows of the other factor and once from those
           just used, over the rates measured for tables of these sizes; plus 2 (4 + b) m read in order

and the bound is the larger of the two times. Each rate is measured here, by a loop that does nothing else (`ceilings.py`).
"efficiency" is the bound over the measured time of the pass; it can exceed 1, as the samples of a row visit the other factor in
ascending order, which is faster than at random. The plain Numba loop is a loop over CSR rows with a private gradient for
each thread. All on the same arrays in one run; best of the rounds.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from cases import positions, print_table, write_result
from ceilings import best_seconds, flop_rate, row_bandwidth, stream_bandwidth
from numba import njit, prange

import dmf
from dmf.arrays.threads import thread_count
from dmf.kernels import simd

CASES = [
    (m, shape, width, dtype)
    for m, shape in ((1_000_000, (10_000, 10_000)), (1_000_000, (60_000, 60_000)), (10_000_000, (100_000, 60_000)))
    for width in (8, 20, 64)
    for dtype in (np.float64, np.float32)
]


@njit(parallel=True, fastmath=True)
def plain_pass(starts, cols, values, left, right, threads):
    """Loss and both products; factors (d1, w) and (d2, w), rows dealt out to the threads."""
    count, width = left.shape
    grad_left, private = np.zeros_like(left), np.zeros((threads, right.shape[0], width), right.dtype)
    losses = np.zeros(threads)
    for thread in prange(threads):
        for i in range(count * thread // threads, count * (thread + 1) // threads):
            for k in range(starts[i], starts[i + 1]):
                j = cols[k]
                error = -values[k]
                for c in range(width):
                    error += left[i, c] * right[j, c]
                losses[thread] += error * error / 2
                for c in range(width):
                    grad_left[i, c] += error * right[j, c]
                    private[thread, j, c] += error * left[i, c]
    return np.sum(losses), grad_left, np.sum(private, axis=0)


def measure(m: int, shape: tuple[int, int], width: int, dtype: type, stream: float, flops: float) -> dict[str, Any]:
    """Bound, time and efficiency of one case."""
    generator = np.random.default_rng([m, *shape, width])
    rows, cols = positions(generator, shape, m)
    values = generator.standard_normal(m).astype(dtype)
    left, right = (generator.standard_normal((d, width)).astype(dtype) for d in shape)
    wide = np.ascontiguousarray(right.T)
    observations = dmf.SampledEntries(rows, cols, values, shape)
    starts = np.searchsorted(rows, np.arange(shape[0] + 1))
    found = observations.evaluate(left, wide)
    threads = thread_count()
    plain = plain_pass(starts, cols, values, left, right, threads)
    off = max(
        float(np.max(np.abs(f - e)) / np.max(np.abs(e)))
        for f, e in zip((found[0], found[1], found[2].T), plain, strict=True)
    )
    seconds = best_seconds(lambda: observations.evaluate(left, wide), 15)
    plain_seconds = best_seconds(lambda: plain_pass(starts, cols, values, left, right, threads))

    size = np.dtype(dtype).itemsize
    length = simd.padded(width, size)
    tables = (shape[1], max(m // shape[0], 1), shape[0], max(m // shape[1], 1))
    reading = sum(length * size * m / row_bandwidth(table, length, dtype) for table in tables)
    parts = {"flops": 8 * length * m / flops, "bytes": reading + 2 * (4 + size) * m / stream}
    bound = max(parts.values())
    return {
        "samples": m,
        "shape": shape,
        "width": width,
        "dtype": dtype.__name__,
        "milliseconds": 1e3 * seconds,
        "bound_milliseconds": 1e3 * bound,
        "bound_by": max(parts, key=lambda name: parts[name]),
        "efficiency": bound / seconds,
        "gigaflops": 6e-9 * width * m / seconds,
        "plain_loop_gigaflops": 6e-9 * width * m / plain_seconds,
        "plain_loop_over_dmf": plain_seconds / seconds,
        "off_plain_loop_by": off,
    }


@click.command()
@click.option("--quick", is_flag=True, help="The first two cases; writes no result.")
def main(quick: bool) -> None:
    """Measure ceilings and passes and write results/kernel_efficiency.json."""
    stream, flops = stream_bandwidth(), {dtype: flop_rate(dtype) for dtype in (np.float64, np.float32)}
    print(f"{thread_count()} cores: {stream / 1e9:.1f} GB/s read in order, ", end="")
    print(", ".join(f"{rate / 1e9:.0f} GFLOP/s {dtype.__name__}" for dtype, rate in flops.items()))
    cases = [measure(*case, stream, flops[case[-1]]) for case in (CASES[:2] if quick else CASES)]
    header = ["dtype", "width", "ms", "bound ms", "bound by", "efficiency", "GFLOP/s", "plain loop", "x", "off by"]
    table = []
    for case in cases:
        name = f"{case['samples']:,} of {case['shape'][0]:,} x {case['shape'][1]:,}"
        numbers = [case[key] for key in ("gigaflops", "plain_loop_gigaflops", "plain_loop_over_dmf")]
        row = [name, case["dtype"], str(case["width"]), case["milliseconds"], case["bound_milliseconds"]]
        table.append([*row, case["bound_by"], case["efficiency"], *numbers, f"{case['off_plain_loop_by']:.0e}"])
    print_table(["samples", *header], table)
    if not quick:
        rates = {dtype.__name__: rate for dtype, rate in flops.items()}
        write_result(
            "kernel_efficiency",
            {"threads": thread_count(), "stream_bytes_per_second": stream, "flops": rates, "cases": cases},
        )


if __name__ == "__main__":
    main()
