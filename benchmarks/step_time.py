"""How long does one gradient step of the compressed network take, on one core, against JAX and a plain Numba loop?

Completion of the paper's kind: 100 x 100, rank 5, 3,000 entries seen, r-hat 10, depth 3, float64, step 10, outer layers
5 times that, spectral start at scale 1e-2, loss "mean". Every contender makes the same steps from the same weights, and
all must end at the same training loss and recovery error. Each round times all of them in turn. "CPU" is processor time,
which on one core is what wall time would be without other load; ratios are of the best CPU times and the median of the
ratios in each round. "off by" is relative to dmf.

Then factorization of a known 80 x 50 matrix of rank 3 at depth 4, by a wide network and by a compressed one of r-hat 10; and the
entries above from the compressed start of Yaras et al. (a core of width 10, outer factors at a tenth of the rate).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import click
import numpy as np
from cases import paper_target, print_table, uniform_mask, write_result
from numba import njit, set_num_threads
from threadpoolctl import threadpool_limits

import dmf

D, RANK, RANK_HAT, DEPTH, SAMPLES = 100, 5, 10, 3, 3_000
STEP, OUTER_SCALE, SCALE = 10.0, 5.0, 1e-2
RATES = (OUTER_SCALE * STEP, STEP, OUTER_SCALE * STEP)
XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

Weights = Sequence[np.ndarray]


@njit(fastmath=True)
def plain_descent(starts, cols, values, first, inner, last, rates, iterations):
    """The step as one writes it in Numba for depth 3: loops over samples and rank, no copies; `first` is W_1^T."""
    d1, d2, r = last.shape[0], first.shape[0], inner.shape[0]
    scale = 1 / values.shape[0]
    left, grad_left, grad_first = np.empty((d1, r)), np.empty((d1, r)), np.empty((d2, r))
    for _ in range(iterations):
        for i in range(d1):
            for j in range(r):
                total = 0.0
                for k in range(r):
                    total += last[i, k] * inner[k, j]
                left[i, j] = total
        grad_left[:] = 0
        grad_first[:] = 0
        for i in range(d1):
            for k in range(starts[i], starts[i + 1]):
                c = cols[k]
                total = -values[k]
                for j in range(r):
                    total += left[i, j] * first[c, j]
                total *= scale
                for j in range(r):
                    grad_left[i, j] += total * first[c, j]
                    grad_first[c, j] += total * left[i, j]
        grad_last, grad_inner = grad_left @ inner.T, last.T @ grad_left
        for i in range(d2):
            for j in range(r):
                first[i, j] -= rates[0] * grad_first[i, j]
        for i in range(r):
            for j in range(r):
                inner[i, j] -= rates[1] * grad_inner[i, j]
        for i in range(d1):
            for j in range(r):
                last[i, j] -= rates[2] * grad_last[i, j]


def contenders(observations, network, target, mask) -> dict[str, Callable[[int], Weights]]:
    """Name -> the weights after a number of steps from `network`."""

    def with_dmf(iterations):
        recovery = dmf.gradient_descent(
            observations, network, STEP, OUTER_SCALE, iterations=iterations, record_every=1_000
        )
        return recovery.network.weights

    starts = np.concatenate([[0], np.cumsum(np.bincount(observations.rows, minlength=D))])

    def with_numba(iterations):
        first, inner, last = network.weights[0].T.copy(), network.weights[1].copy(), network.weights[2].copy()
        plain_descent(starts, observations.cols, observations.values, first, inner, last, np.array(RATES), iterations)
        return first.T, inner, last

    found = {"dmf": with_dmf, "Numba, plain loop": with_numba}
    try:
        from peers.jax_network import JaxNetwork
    except ImportError:
        print("JAX is not installed: its two rows are left out (pip install 'dmf[bench]').")
    else:
        peer = JaxNetwork(network.weights, target, mask, RATES)
        found |= {"JAX, jitted step": peer.call_per_step, "JAX, fori_loop in jit": peer.one_loop}
    return found


def further(steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of a step, and ratios to dmf: whole matrix, wide and compressed; compressed start of Yaras et al."""
    try:
        from peers.jax_network import JaxFactorization, JaxNetwork
    except ImportError:
        return {}
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 50))
    whole = dmf.FullMatrix(matrix / np.linalg.norm(matrix, 2))
    target, mask = paper_target(0, D, RANK), uniform_mask(0, (D, D), SAMPLES)
    seen = dmf.SampledEntries(*np.nonzero(mask), target[mask], (D, D))
    core = dmf.compressed_start(seen, dmf.orthogonal_network((D, D), DEPTH, 0.1), RANK)
    wide, narrow = dmf.orthogonal_network(whole.shape, 4, 0.3), dmf.spectral_network(whole, 10, 4, 0.3)
    slow = (0.1 * STEP, *[STEP] * DEPTH, 0.1 * STEP)
    cases = {
        "whole, wide": (whole, wide, 1.0, 1.0, JaxFactorization(wide.weights, whole.matrix, (1.0,) * 4), steps // 4),
        "whole, compressed": (
            whole,
            narrow,
            1.0,
            1.0,
            JaxFactorization(narrow.weights, whole.matrix, (1.0,) * 4),
            steps,
        ),
        "entries, compressed start": (seen, core, STEP, 0.1, JaxNetwork(core.weights, target, mask, slow), steps),
    }
    found = {}
    for kind, (known, start, step, outer, peer, count) in cases.items():

        def with_dmf(count, known=known, start=start, step=step, outer=outer):
            return dmf.gradient_descent(known, start, step, outer, iterations=count, record_every=count).network.weights

        functions = {"dmf": with_dmf, "JAX, jitted step": peer.call_per_step, "JAX, fori_loop in jit": peer.one_loop}
        ends = [np.linalg.multi_dot([np.asarray(w) for w in f(count)[::-1]]) for f in functions.values()]
        cpu = np.empty((rounds, len(functions)))
        for k in range(rounds):
            for i, function in enumerate(functions.values()):
                begin = time.process_time()
                function(count)
                cpu[k, i] = 1e6 * (time.process_time() - begin) / count
        for i, name in enumerate(functions):
            found[f"{kind}, {name}"] = {
                "cpu_microseconds_per_step": cpu[:, i].min(),
                "cpu_times_dmf": cpu[:, i].min() / cpu[:, 0].min(),
                "cpu_times_dmf_median": float(np.median(cpu[:, i] / cpu[:, 0])),
                "product_off_by": float(np.max(np.abs(ends[i] - ends[0]))),
            }
    print_table(
        ["us/step", "CPU", "x dmf", "median", "off by"],
        [[name, *(f"{value:.3g}" for value in row.values())] for name, row in found.items()],
    )
    return found


def reached(weights: Weights, target: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Training loss and recovery error, in NumPy."""
    first, inner, last = map(np.asarray, weights)
    error = last @ inner @ first - target
    return float(0.5 * np.mean(error[mask] ** 2)), float(np.linalg.norm(error) / np.linalg.norm(target))


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds and steps.")
def main(quick: bool) -> None:
    """Time the step and write results/step_time.json."""
    steps, rounds = (500, 3) if quick else (2_000, 15)
    os.environ["XLA_FLAGS"] = XLA_ONE_THREAD  # read when JAX is first imported, below
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    set_num_threads(1)
    with threadpool_limits(1):
        run(steps, rounds, save=not quick)


def run(steps: int, rounds: int, save: bool) -> None:
    """Interleaved rounds over all contenders, table, result file."""
    target, mask = paper_target(0, D, RANK), uniform_mask(0, (D, D), SAMPLES)
    rows, cols = np.nonzero(mask)
    observations = dmf.SampledEntries(rows, cols, target[mask], (D, D))
    network = dmf.spectral_network(observations, RANK_HAT, depth=DEPTH, scale=SCALE)
    functions = contenders(observations, network, target, mask)
    ends = {name: reached(function(steps), target, mask) for name, function in functions.items()}  # compiles, too
    wall, cpu = np.empty((2, len(functions), rounds))
    for k in range(rounds):
        for i, function in enumerate(functions.values()):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            function(steps)
            wall[i, k], cpu[i, k] = time.perf_counter() - begin, time.process_time() - begin_cpu
    wall, cpu = 1e6 * wall / steps, 1e6 * cpu / steps
    table, result = [], {}
    for i, name in enumerate(functions):
        off = [abs(found / known - 1) for found, known in zip(ends[name], ends["dmf"], strict=True)]
        ratio, in_rounds = cpu[i].min() / cpu[0].min(), float(np.median(cpu[i] / cpu[0]))
        times = [f"{cpu[i].min():.1f}", f"{wall[i].min():.1f}", f"{np.median(wall[i]):.1f}"]
        ends_at = [f"{number:.6g}" for number in ends[name]]
        table.append([name, *times, f"{ratio:.2f}", f"{in_rounds:.2f}", *ends_at, *(f"{x:.0e}" for x in off)])
        result[name] = {
            "cpu_microseconds_per_step": cpu[i].min(),
            "wall_microseconds_per_step": wall[i].min(),
            "wall_microseconds_per_step_median": float(np.median(wall[i])),
            "cpu_times_dmf": ratio,
            "cpu_times_dmf_median": in_rounds,
            "wall_times_dmf": wall[i].min() / wall[0].min(),
            "training_loss": ends[name][0],
            "recovery_error": ends[name][1],
            "relative_difference_loss": off[0],
            "relative_difference_error": off[1],
        }
    header = [
        "one core, us/step",
        "CPU",
        "wall",
        "median",
        "x dmf",
        "median",
        "loss",
        "error",
        "loss off by",
        "error off by",
    ]
    print(
        f"{D} x {D}, {SAMPLES} samples, r-hat {RANK_HAT}, depth {DEPTH}, float64; {steps} steps, best of {rounds} rounds"
    )
    print_table(header, table)
    more = further(steps, rounds)
    if save:
        write_result("step_time", {"steps": steps, "rounds": rounds, "contenders": result, "further": more})


if __name__ == "__main__":
    main()
