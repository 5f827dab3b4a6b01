"""How long does one iteration of sensing with a dense A take, against two passes over A, and against reading A once?

An iteration needs from the data: the residual ``r_k = <A_k, left @ right> - y_k``, its loss, and the products of
``Z = sum_k r_k A_k`` with both factors. A is far larger than the caches, so the bound is the time to read it once, the
"ceiling" measured here by a parallel sum over A. Contenders, all of which get the same factors:

- dmf: the kernel behind `LinearMeasurements`; its twin in NumPy, which reads A once in blocks of 2 MiB;
- NumPy, BLAS: two matrix-vector products, which is what tensordot calls; NumPy, einsum as it is written;
- JAX: the two einsums in one jitted function; the form of published code, ``sum(A * W)`` and automatic differentiation.

All in turn, each called twice and timed at the second call; best and median over the rounds. GB/s count A once, however
often a form reads it. "CPU" is processor time over all threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from cases import print_table, write_result
from ceilings import parallel_sum

import dmf
from dmf.arrays.threads import thread_count
from dmf.kernels import TABLE

RANK_HAT, TRUE_RANK = 10, 5
CASES = ((100, 2_000, np.float64), (100, 2_000, np.float32), (50, 2_000, np.float64), (300, 250, np.float64))


def jax_forms(matrices, values, left, right) -> dict[str, Callable]:
    """Both JAX forms; none where JAX is not installed."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        print("JAX is not installed: its two rows are left out (pip install 'dmf[bench]').")
        return {}
    jax.config.update("jax_enable_x64", True)
    arrays = tuple(map(jnp.asarray, (matrices, values, left, right)))

    @jax.jit
    def einsum(matrices, values, left, right):
        residual = jnp.einsum("kij,ij->k", matrices, left @ right) - values
        dense = jnp.einsum("k,kij->ij", residual, matrices)
        return 0.5 * jnp.sum(residual**2), dense @ right.T, left.T @ dense

    @jax.jit
    def published(matrices, values, left, right):
        def loss(left, right):
            return 0.5 * jnp.sum((jnp.sum(matrices * (left @ right), axis=(1, 2)) - values) ** 2)

        found, gradients = jax.value_and_grad(loss, argnums=(0, 1))(left, right)
        return found, *gradients

    return {
        "JAX, einsum in jit": lambda: jax.block_until_ready(einsum(*arrays)),
        "JAX, sum(A * W) and grad": lambda: jax.block_until_ready(published(*arrays)),
    }


def forms_of(d: int, m: int, dtype: type) -> dict[str, Callable]:
    """Name -> (loss, products with both factors); the first is dmf, the last reads A and computes nothing else."""
    generator = np.random.default_rng([d, m])
    matrices = generator.standard_normal((m, d, d)).astype(dtype)
    target = generator.standard_normal((d, TRUE_RANK)) @ generator.standard_normal((TRUE_RANK, d))
    flat = matrices.reshape(m, -1)
    values = flat @ target.ravel().astype(dtype)
    left, right = (generator.standard_normal(shape).astype(dtype) for shape in ((d, RANK_HAT), (RANK_HAT, d)))
    observations = dmf.LinearMeasurements(matrices, values)

    def finish(loss, dense):
        dense = dense.reshape(d, d)
        return loss, dense @ right.T, left.T @ dense

    def one_thread():
        with dmf.threads(1):
            return observations.evaluate(left, right)

    def twin():
        return finish(*TABLE["dense_residual"]["reference"](flat, None, values, (left @ right).ravel()))

    def blas():
        residual = flat @ (left @ right).ravel() - values
        return finish(0.5 * residual @ residual, residual @ flat)

    def einsum():
        residual = np.einsum("kij,ij->k", matrices, left @ right) - values
        return finish(0.5 * residual @ residual, np.einsum("k,kij->ij", residual, matrices))

    return {
        "dmf": lambda: observations.evaluate(left, right),
        "dmf, one thread": one_thread,
        "its twin, BLAS in blocks": twin,
        "NumPy, BLAS": blas,
        "NumPy, einsum": einsum,
        **jax_forms(matrices, values, left, right),
        "reading A (ceiling)": lambda: parallel_sum(flat.reshape(-1), 64),
    }


def deviation(found, expected) -> float:
    """Largest deviation, relative to the largest number of each of the three results."""
    pairs = zip(map(np.asarray, found), map(np.asarray, expected), strict=True)
    return max(float(np.max(np.abs(f - e)) / np.max(np.abs(e))) for f, e in pairs)


def measure(d: int, m: int, dtype: type, rounds: int) -> dict[str, Any]:
    """Times of each form in milliseconds, ratios, bandwidth, agreement with the BLAS form."""
    forms = forms_of(d, m, dtype)
    *contenders, ceiling = forms
    expected = forms["NumPy, BLAS"]()
    off = {name: deviation(forms[name](), expected) for name in contenders}  # compiles, too
    wall, cpu = np.empty((2, len(forms), rounds))
    for k in range(rounds):
        for i, form in enumerate(forms.values()):
            form()  # lets the threads of the form before fall asleep
            begin, begin_cpu = time.perf_counter(), time.process_time()
            form()
            wall[i, k], cpu[i, k] = time.perf_counter() - begin, time.process_time() - begin_cpu
    size = m * d * d * np.dtype(dtype).itemsize
    times = {
        name: {
            "wall_ms": 1e3 * wall[i].min(),
            "wall_ms_median": 1e3 * float(np.median(wall[i])),
            "cpu_ms": 1e3 * cpu[i].min(),
            "dmf_over_this": wall[0].min() / wall[i].min(),
            "dmf_over_this_median": float(np.median(wall[0] / wall[i])),
            "dmf_over_this_cpu": cpu[0].min() / cpu[i].min(),
            "gigabytes_per_second": 1e-9 * size / wall[i].min(),
            "share_of_ceiling": wall[-1].min() / wall[i].min(),
        }
        for i, name in enumerate(forms)
    }
    case = {"size": d, "measurements": m, "dtype": dtype.__name__, "megabytes": 1e-6 * size, "rounds": rounds}
    return {**case, "times": times, "off_by": off, "ceiling": ceiling}


@click.command()
@click.option("--quick", is_flag=True, help="The first size only, few rounds; writes no result.")
def main(quick: bool) -> None:
    """Time the pass and write results/sensing_pass.json."""
    cases = [measure(*case, 5 if quick else 60) for case in (CASES[:1] if quick else CASES)]
    header = ["wall ms", "median", "CPU ms", "dmf / this", "median", "CPU", "GB/s", "of ceiling", "off by"]
    for case in cases:
        print(
            f"\n{case['measurements']:,} measurements of {case['size']} x {case['size']} matrices, {case['dtype']}, A of "
            f"{case['megabytes']:.0f} MB, {thread_count()} cores; best of {case['rounds']} rounds"
        )
        rows = []
        for name, t in case["times"].items():
            numbers = [t["wall_ms"], t["wall_ms_median"], t["cpu_ms"]]
            numbers += [t["dmf_over_this"], t["dmf_over_this_median"], t["dmf_over_this_cpu"]]
            off = f"{case['off_by'][name]:.0e}" if name in case["off_by"] else "-"
            rows.append([name, *numbers, t["gigabytes_per_second"], t["share_of_ceiling"], off])
        print_table(["one iteration", *header], rows)
    if not quick:
        write_result("sensing_pass", {"threads": thread_count(), "rank_hat": RANK_HAT, "cases": cases})


if __name__ == "__main__":
    main()
