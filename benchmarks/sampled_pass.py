"""How long does one pass over 1,000,000 samples take, against NumPy and SciPy?

A pass gives what a gradient step needs from the data: the residual of ``left @ right`` on the samples, its loss, and
the two products R V^T and U^T R. The peer is the usual vectorised code: rows of both factors gathered, einsum, and two
products of a CSR matrix whose structure is built beforehand with a dense one. "in blocks" is the same gathered 4,096
samples at a time, so that what is gathered stays in the caches. All forms in turn, each called
twice and timed at the second call, as a descent calls a pass again and again; best and median of the rounds.

"wall" is wall-clock time with all cores; both forms are free to use them, and dmf does. "CPU" is the processor time of
one thread of each, which other load on the machine disturbs less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from cases import positions, print_table, write_result
from scipy.sparse import csr_array

import dmf
from dmf.arrays.threads import thread_count

SAMPLES, BLOCK = 1_000_000, 4_096
_SPIN = 0.3  # seconds for which BLAS threads of the form before may go on taking a core


class ScipyPass:
    """Residual, loss and both products with einsum and two CSR matrices; factors are (d1, r) and (d2, r), C-contiguous."""

    def __init__(self, rows, cols, values, shape, block) -> None:
        self._rows, self._cols, self._values, self._block = rows, cols, values, block
        self._by_row = csr_array((values, (rows, cols)), shape=shape)
        self._order = np.argsort(cols, kind="stable")
        self._by_col = csr_array((values[self._order], (cols[self._order], rows[self._order])), shape=shape[::-1])

    def __call__(self, left, right):
        """Loss, ``R @ right`` (d1, r) and ``R^T @ left`` (d2, r)."""
        residual = np.empty_like(self._values)
        for start in range(0, residual.size, self._block):
            part = slice(start, start + self._block)
            residual[part] = np.einsum("ij,ij->i", left[self._rows[part]], right[self._cols[part]])
        residual -= self._values
        self._by_row.data, self._by_col.data = residual, residual[self._order]
        return 0.5 * float(residual @ residual), self._by_row @ right, self._by_col @ left


def deviation(found, expected) -> float:
    """Largest deviation, relative to the largest number of each of the three results."""
    return max(float(np.max(np.abs(f - e)) / np.max(np.abs(e))) for f, e in zip(found, expected, strict=True))


def forms_of(d: int, rank: int, dtype: type) -> tuple[dict[str, Callable], dict[str, float]]:
    """The forms of one pass, compiled and warm, and how far each is off SciPy in float64."""
    generator = np.random.default_rng([d, rank])
    rows, cols = positions(generator, (d, d), SAMPLES)
    values = generator.standard_normal(SAMPLES).astype(dtype)
    left, right = (generator.standard_normal((d, rank)).astype(dtype) for _ in range(2))
    wide = np.ascontiguousarray(right.T)
    observations = dmf.SampledEntries(rows, cols, values, (d, d))
    gathered = ScipyPass(rows, cols, values, (d, d), SAMPLES)
    blocked = ScipyPass(rows, cols, values, (d, d), BLOCK)

    def one_thread():
        with dmf.threads(1):
            return observations.evaluate(left, wide)

    forms: dict[str, Callable] = {
        "dmf": lambda: observations.evaluate(left, wide),
        "dmf, one thread": one_thread,
        "SciPy": lambda: gathered(left, right),
        "SciPy in blocks": lambda: blocked(left, right),
    }
    exact = ScipyPass(rows, cols, values.astype(float), (d, d), BLOCK)(left.astype(float), right.astype(float))
    off = {}
    for name, form in forms.items():
        loss, grad_left, grad_right = form()
        if name.startswith("dmf"):
            off[name] = deviation((loss, grad_left, grad_right.T), exact)
        elif dtype is not np.float64:  # in float64 the yardstick is this very computation
            off[name] = deviation((loss, grad_left, grad_right), exact)
    return forms, off


def measure(d: int, rank: int, dtype: type, rounds: int) -> dict[str, Any]:
    """Times of each form, in milliseconds, and ratios of SciPy to dmf."""
    forms, off = forms_of(d, rank, dtype)
    wall, cpu = np.empty((2, len(forms), rounds))
    for k in range(rounds):
        for i, form in enumerate(forms.values()):
            time.sleep(_SPIN)
            form()  # brings its data into the caches, where the next call of a descent finds them
            begin, begin_cpu = time.perf_counter(), time.process_time()
            form()
            wall[i, k], cpu[i, k] = time.perf_counter() - begin, time.process_time() - begin_cpu
    times = {
        name: {
            "wall_ms": 1e3 * wall[i].min(),
            "wall_ms_median": 1e3 * float(np.median(wall[i])),
            "cpu_ms": 1e3 * cpu[i].min(),
            "wall_times_dmf": wall[i].min() / wall[0].min(),
            "wall_times_dmf_median": float(np.median(wall[i] / wall[0])),
            "cpu_times_one_thread_of_dmf": cpu[i].min() / cpu[1].min(),
        }
        for i, name in enumerate(forms)
    }
    return {"size": d, "dtype": dtype.__name__, "rank": rank, "rounds": rounds, "times": times, "off_by": off}


@click.command()
@click.option("--quick", is_flag=True, help="One size, one rank, few rounds; writes no result.")
def main(quick: bool) -> None:
    """Time the pass and write results/sampled_pass.json."""
    sizes, ranks, rounds = ((10_000,), (20,), 5) if quick else ((10_000, 5_000), (10, 20, 64, 100), 15)
    cases = [
        measure(d, rank, dtype, rounds if rank <= 20 else rounds // 3)
        for d in sizes
        for dtype in (np.float64, np.float32)
        for rank in ranks
    ]
    print(f"{SAMPLES:,} samples, {thread_count()} cores; milliseconds, and times dmf (best, median of rounds)")
    print("off by: largest deviation from SciPy in float64, relative to the largest number")
    header = ["matrix", "dtype", "r-hat", "dmf wall", "SciPy wall", "x", "median x", "in blocks x"]
    table = []
    for case in cases:
        times, off = case["times"], case["off_by"]
        scipy, blocks = times["SciPy"], times["SciPy in blocks"]
        row = [f"{case['size']} x {case['size']}", case["dtype"], str(case["rank"])]
        row += [f"{times['dmf']['wall_ms']:.1f}", f"{scipy['wall_ms']:.0f}"]
        row += [f"{r:.1f}" for r in (scipy["wall_times_dmf"], scipy["wall_times_dmf_median"], blocks["wall_times_dmf"])]
        row += [f"{times['dmf, one thread']['cpu_ms']:.1f}", f"{scipy['cpu_ms']:.0f}"]
        row += [f"{form['cpu_times_one_thread_of_dmf']:.1f}" for form in (scipy, blocks)]
        table.append([*row, f"{off['dmf']:.0e}", f"{off['SciPy']:.0e}" if "SciPy" in off else "-"])
    print_table([*header, "dmf CPU", "SciPy CPU", "x", "in blocks x", "dmf off by", "SciPy off by"], table)
    if not quick:
        write_result("sampled_pass", {"samples": SAMPLES, "threads": thread_count(), "cases": cases})


if __name__ == "__main__":
    main()
