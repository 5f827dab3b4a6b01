"""Everything that needs a GPU: the tests, compute-sanitizer, and how long passes, completion, sensing and training take.

    pip install '.[test,bench,cuda13]' && python benchmarks/gpu.py

Times on the device are medians over repeats after a warm-up, between events on the stream (cupyx.profiler); whole calls are
wall-clock times between synchronisations. Bandwidth bounds, against a copy of 4 GB on the same device in the same run:

- "once": every index, value and number of the factors and of their gradients is moved once: what cannot be avoided;
- "gathered": besides, each sample reads the row of the other factor that it meets, on either side, as no cache holds them
  all for sure. Caches that hold part of them let a pass beat this bound.

Prints a short table last and writes results/gpu.json.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from cases import paper_target, print_table, uniform_mask, write_result
from gpu_training import BLOCK, COMPRESSED, TORCH, first_use, training_steps
from problems import ratings

import dmf
from dmf.arrays.backend import check_device, cupy_module

ROOT = Path(__file__).parents[1]
SHAPE, SAMPLES = (160_000, 60_000), 25_000_000
RATED_TARGET = 0.626  # held-out root-mean-square error
CPU_THREADS = 2
_SANITIZED = "every_kernel or small_descent or same_bits_twice"  # they launch every kernel, on small problems
_SECONDS = 600  # longest for the tests

Row = tuple[str, str, str]  # what, measured, target


def run_tests() -> dict[str, Any]:
    """The tests marked "gpu", and under compute-sanitizer those of the kernels; the last line that pytest prints, of each.

    Under compute-sanitizer without CuPy's pool of memory, in which an access beyond an array meets another one.
    """
    found = {}
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    commands = {"tests": [*pytest, "-m", "gpu", "tests"]}
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck", "initcheck") if sanitizer else ():
        checked = [*pytest, "tests/gpu", "-k", _SANITIZED]
        commands[tool] = [sanitizer, "--tool", tool, "--error-exitcode", "9", *checked]
    for name, command in commands.items():
        environment = os.environ | ({} if name == "tests" else {"DMF_NO_POOL": "1"})
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            found[name] = {"code": None, "said": f"stopped after {_SECONDS:,} s"}
            continue
        lines = [
            line
            for line in done.stdout.splitlines()
            if " passed" in line or " failed" in line or "ERROR SUMMARY" in line
        ]
        found[name] = {"code": done.returncode, "said": "; ".join(lines) or (done.stdout + done.stderr)[-300:]}
        if done.returncode:
            print(done.stdout[-8_000:], done.stderr[-2_000:], sep="\n")
    if not sanitizer:
        found["memcheck"] = {"code": None, "said": "compute-sanitizer is not installed"}
    return found


def milliseconds(function: Any, repeats: int = 20) -> float:
    """Median time on the device."""
    from cupyx.profiler import benchmark

    return 1e3 * float(np.median(benchmark(function, n_repeat=repeats, n_warmup=3).gpu_times))


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy."""
    cupy = cupy_module()
    one = cupy.zeros(2**29, cupy.float32)
    other = cupy.empty_like(one)
    return 2 * one.nbytes / (1e-3 * milliseconds(lambda: cupy.copyto(other, one)))


def positions(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """SAMPLES rows and columns, uniform or with a few of each that hold most."""
    generator = np.random.default_rng(0)
    powers = (1.0, 1.0) if kind == "uniform" else (2.5, 3.0)
    rows, cols = ((n * generator.random(SAMPLES) ** p).astype(np.int32) for n, p in zip(SHAPE, powers, strict=True))
    return rows, cols


@dmf.threads(min(CPU_THREADS, os.cpu_count() or 1))
def fused_pass(kind: str, rank: int, bandwidth: float) -> dict[str, float]:
    """Loss and both products on the device, against the bounds and the CPU."""
    cupy, generator = cupy_module(), np.random.default_rng(1)
    rows, cols = positions(kind)
    left, right = (generator.standard_normal(s).astype(np.float32) for s in ((SHAPE[0], rank), (rank, SHAPE[1])))
    here = dmf.SampledEntries(rows, cols, generator.standard_normal(SAMPLES).astype(np.float32), SHAPE)
    there = here.to_device("cuda")
    factors = cupy.asarray(left), cupy.asarray(right)
    device_ms = milliseconds(lambda: there.evaluate(*factors))
    expected = here.evaluate(left, right)  # compiles
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        expected = here.evaluate(left, right)
        times.append(1e3 * (time.perf_counter() - begin))
    off = max(
        float(np.max(np.abs(a.get() - b)) / np.max(np.abs(b)))
        for a, b in zip(there.evaluate(*factors), expected, strict=True)
    )
    once = 2 * (8 * SAMPLES + 4 * 2 * rank * sum(SHAPE))
    gathered = once + 2 * 4 * rank * SAMPLES
    return {
        "milliseconds": device_ms,
        "share_of_bound_once": once / bandwidth / (1e-3 * device_ms),
        "share_of_bound_gathered": gathered / bandwidth / (1e-3 * device_ms),
        "cpu_milliseconds": float(np.median(times)),
        "cpu_over_device": float(np.median(times)) / device_ms,
        "off_by": off,
    }


def completion() -> dict[str, float]:
    """Ratings on the device: seconds of the whole call, and until the held-out error is below the target."""
    cupy, case = cupy_module(), ratings()
    held, kept = slice(0, case["n_test"]), slice(case["n_test"], None)
    parts = [[cupy.asarray(case[key][part]) for key in ("rows", "cols", "values")] for part in (held, kept)]
    tested = dmf.SampledEntries(*parts[0], case["shape"])

    def error(left: Any, right: Any) -> float:
        return float((2 * tested.loss(left, right) / tested.n_measurements) ** 0.5)

    def solve(callback: Any) -> tuple[float, dmf.Recovery]:
        cupy.cuda.Device().synchronize()
        begin = time.perf_counter()
        observations = dmf.SampledEntries(*parts[1], case["shape"])  # sorts, too
        recovery = dmf.complete(observations, 16, offsets=True, callback=callback)
        cupy.cuda.Device().synchronize()
        return time.perf_counter() - begin, recovery

    solve(None)  # compiles
    seconds, recovery = solve(None)
    reached, paused = [], 0.0

    def look(snapshot: Any) -> None:
        nonlocal paused
        now = time.perf_counter()
        if not reached and error(*snapshot.model.factors()) <= RATED_TARGET:
            reached.append(now - begin - paused)
        paused += time.perf_counter() - now

    begin = time.perf_counter()
    solve(look)
    found = {"seconds": seconds, "error": error(*recovery.factors()), "oracle": case["oracle"]}
    return found | {"seconds_to_target": reached[0] if reached else -1.0}


def paper_problem() -> dict[str, float]:
    """Seconds of 5,000 steps of descent and of dmf.complete on the paper's 100 x 100 problem, on the CPU and the device."""
    target, mask = paper_target(0, 100, 5), uniform_mask(0, (100, 100), 3_000)
    rows, cols = np.nonzero(mask)
    here, found = dmf.SampledEntries(rows, cols, target[mask], (100, 100)), {}
    for name, data in (("cpu", here), ("device", here.to_device("cuda"))):
        start = dmf.spectral_network(data, 10, depth=3)
        calls = {
            "descent": lambda data=data, start=start: dmf.gradient_descent(
                data, start, 10, outer_scale=5, iterations=5_000, record_every=1_000
            ),
            "complete": lambda data=data: dmf.complete(data),
        }
        for call, function in calls.items():
            times = []
            for _ in range(6):
                begin = time.perf_counter()
                function()
                times.append(time.perf_counter() - begin)
            found[f"{call}_{name}_seconds"] = float(np.median(times[1:]))
    return found


def sensing(dtype: type, bandwidth: float) -> dict[str, float]:
    """Loss and both products for 4,000 dense matrices of 200 x 200."""
    cupy, d, m = cupy_module(), 200, 4_000
    generator = cupy.random.default_rng(0)
    operator = generator.standard_normal((m, d, d), dtype=dtype)
    observations = dmf.LinearMeasurements(operator, cupy.ones(m, dtype))
    left, right = (generator.standard_normal(s, dtype=dtype) for s in ((d, 10), (10, d)))
    time_ms = milliseconds(lambda: observations.evaluate(left, right))
    share = operator.nbytes / bandwidth / (1e-3 * time_ms)
    return {"milliseconds": time_ms, "share_of_bound_read_once": share, "share_of_bound_read_twice": 2 * share}


def device_facts() -> dict[str, Any]:
    """What the numbers depend on, besides the host."""
    cupy = cupy_module()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "memory_gigabytes": 1e-9 * properties["totalGlobalMem"],
        "cupy": cupy.__version__,
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }


def table_of(found: dict[str, Any]) -> list[Row]:
    """The short table: what was measured, against the targets."""
    rows: list[Row] = [(name, part["said"], "all pass") for name, part in found.get("checks", {}).items()]
    for name, part in found["passes"].items():
        shares = f"{part['share_of_bound_once']:.0%} of once, {part['share_of_bound_gathered']:.0%} of gathered"
        rows.append((f"pass, {name}", f"{part['milliseconds']:.3g} ms, {shares}", ">= 50 %"))
        rows.append(("  CPU over this", f"{part['cpu_over_device']:.3g}, off by {part['off_by']:.0e}", ">= 30"))
    part = found["completion"]
    reached = f"{part['seconds_to_target']:.3g} s to {RATED_TARGET}, ends at {part['error']:.4f} after {part['seconds']:.3g} s"
    rows.append(("completion of ratings", reached, "< 2 s"))
    part = found["paper_problem"]
    for call in ("descent", "complete"):
        here, there = (part[f"{call}_{name}_seconds"] for name in ("cpu", "device"))
        rows.append((f"d = 100, {call}", f"{there:.3g} s, CPU {here:.3g} s: {there / here:.3g} times", "<= 2 times"))
    for name, part in found["sensing"].items():
        shares = f"{part['share_of_bound_read_once']:.0%} reading A once, {part['share_of_bound_read_twice']:.0%} twice"
        rows.append((f"dense sensing, {name}", f"{part['milliseconds']:.3g} ms, {shares}", ">= 70 %"))
    part, targets = found["training"]["contenders"], {"plain": "< 0.5 ms", COMPRESSED: f"< {BLOCK}", TORCH: ""}
    for name, step in part.items():
        said = f"{step['milliseconds']:.3g} ms, loss {step['loss']:.3g}"
        rows.append((f"training step, {name}", said, targets.get(name, "")))
    rows.append(("  off array code by", f"{found['training']['off']:.0e}", "< 1e-4"))
    part = found["first_use"]
    said = f"{part['first']:.3g} s, again {part['again']:.3g} s, {part['kernels']} kernels compiled"
    rows.append(("first use, 100,000 ratings", said, "6 s more"))
    return rows


@click.command()
@click.option("--tests/--no-tests", default=True, help="Run the tests and compute-sanitizer, too.")
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(tests: bool, no_save: bool) -> None:
    """Run all, print a table, write results/gpu.json."""
    try:
        check_device("cuda")
    except dmf.errors.DmfError as error:
        raise click.ClickException(str(error)) from error
    found: dict[str, Any] = {"device": device_facts()}
    if tests:
        found["checks"] = run_tests()
    bandwidth = copy_bandwidth()
    found["copy_gigabytes_per_second"] = 1e-9 * bandwidth
    cases = [(kind, rank) for kind in ("uniform", "popular") for rank in (16, 64)]
    stages = {
        "sensing": lambda: {dtype.__name__: sensing(dtype, bandwidth) for dtype in (np.float32, np.float64)},
        "paper_problem": paper_problem,
        "training": training_steps,
        "first_use": first_use,
        "completion": completion,
        "passes": lambda: {f"{kind}, r-hat {rank}": fused_pass(kind, rank, bandwidth) for kind, rank in cases},
    }
    for name, measure in stages.items():
        begin = time.perf_counter()
        found[name] = measure()
        print(f"{name}: measured in {time.perf_counter() - begin:.0f} s", flush=True)
        if not no_save:  # what is measured is kept, whatever follows
            write_result("gpu", found)
    print(f"{found['device']['name']}, copy at {1e-9 * bandwidth:,.0f} GB/s")
    print_table(["", "measured", "target"], [list(row) for row in table_of(found)])


if __name__ == "__main__":
    main()
