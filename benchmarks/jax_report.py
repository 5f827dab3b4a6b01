"""How long does JAX take to solve the paper's problems?

    python benchmarks/jax_report.py --problem completion

Completion: 100 x 100, rank 5, 30 % of the entries seen, depth 3, scale 1e-2, step 10, outer layers of the compressed network 5
times that, original width 100 and compressed width 10. Sensing: 100 x 100, rank 5, 2,000 Gaussian matrices with entries of
deviation 1/2,000, loss "sum", step 20, compressed width 10. float64. The compiled program is warm; the error is looked at every
100 iterations in completion and every 10 in sensing. The compressed network ends at errors of 2e-6 to 3e-6 in completion (seeds
0 to 2), what its start leaves where no sample looks, so the tolerance there is 1e-5; 1e-6 in sensing. With `--iterations` the
runs are only timed, for so many iterations.
"""

from __future__ import annotations

import time

import click
import numpy as np
from cases import paper_target, print_table, uniform_mask, write_result

import dmf

D, RANK, WIDTH, DEPTH, SEEN, MEASUREMENTS = 100, 5, 10, 3, 3_000, 2_000


def completion(seed: int):
    """Name -> (program, form, iterations between looks)."""
    from peers.jax_network import JaxNetwork

    target, mask = paper_target(seed, D, RANK), uniform_mask(seed, (D, D), SEEN)
    rows, cols = np.nonzero(mask)
    observations = dmf.SampledEntries(rows, cols, target[mask], (D, D))
    wide, small = dmf.orthogonal_network((D, D), DEPTH), dmf.spectral_network(observations, WIDTH, depth=DEPTH)
    original = JaxNetwork(wide.weights, target, mask, (10.0,) * DEPTH)
    compressed = JaxNetwork(small.weights, target, mask, (50.0, 10.0, 50.0))
    return {
        f"{name}, {label}": (program, form, 100)
        for name, program in (("compressed", compressed), ("original", original))
        for label, form in (("jitted step per call", "call_per_step"), ("fori_loop in jit", "one_loop"))
    }


def sensing(seed: int):
    """Name -> (program, form, iterations between looks)."""
    from peers.jax_network import JaxSensing

    target = paper_target(seed, D, RANK)
    matrices = np.random.default_rng([seed, 2]).standard_normal((MEASUREMENTS, D, D)) / MEASUREMENTS
    labels = matrices.reshape(MEASUREMENTS, -1) @ target.ravel()
    wide = dmf.orthogonal_network((D, D), DEPTH)
    small = dmf.spectral_network(dmf.LinearMeasurements(matrices, labels), WIDTH, depth=DEPTH)
    return {
        f"{name}, {form}": (JaxSensing(network.weights, target, matrices, (20.0,) * DEPTH, form), "call_per_step", 10)
        for name, network in (("compressed", small), ("original", wide))
        for form in ("einsum", "published")
    }


@click.command()
@click.option("--problem", type=click.Choice(["completion", "sensing"]), required=True)
@click.option(
    "--tolerance", type=float, help="Relative error to reach; 1e-5 in completion, 1e-6 in sensing unless given."
)
@click.option("--most", default=50_000, show_default=True, help="Iterations after which to give up.")
@click.option("--only", default="", help="Only forms whose name holds this text.")
@click.option("--iterations", type=int, help="Make just so many, and show the time of each and the error.")
@click.option("--seed", default=0, show_default=True)
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(
    problem: str, tolerance: float | None, most: int, only: str, iterations: int | None, seed: int, no_save: bool
) -> None:
    """Time JAX and write results/jax_<problem>.json."""
    table, result = [], {}
    tolerance = tolerance or {"completion": 1e-5, "sensing": 1e-6}[problem]
    for name, (program, form, every) in {"completion": completion, "sensing": sensing}[problem](seed).items():
        if only not in name:
            continue
        program.until(0.0, form, every, every)  # compiles
        begin = time.perf_counter()
        made, error = program.until(0.0 if iterations else tolerance, form, every, iterations or most)
        seconds = time.perf_counter() - begin
        table.append([name, str(made), f"{seconds:.3f}", f"{1e6 * seconds / made:.1f}", f"{error:.2e}"])
        result[name] = {"iterations": made, "seconds": seconds, "error": error}
        print(*table[-1], sep=", ", flush=True)
    print_table([f"JAX, {problem}", "iterations", "seconds", "us each", "error"], table)
    if not no_save:
        write_result(f"jax_{problem}", {"tolerance": tolerance, "seed": seed, "forms": result})


if __name__ == "__main__":
    main()
