"""How much memory does completing a large matrix take, all imports included?

10,000 x 10,000, rank 10, 1,000,000 samples in float64; 20 iterations. Every row is the peak resident memory
(getrusage) of a fresh process that reads the samples from a file and does what the row says; the problem is generated
in another process. Target: under 500 MB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from cases import print_table, recovery_error, sampled_low_rank, write_result

D, RANK, RANK_HAT, SAMPLES, ITERATIONS = 10_000, 10, 20, 1_000_000, 20
TARGET_MB = 500
TASKS = {
    "python": "Python and NumPy",
    "import": "import dmf",
    "observe": "SampledEntries from the file",
    "descend": "spectral_network(20) + gradient_descent",
    "complete": "complete(rank=10)",
}


def child(task: str, path: Path) -> dict[str, float]:
    """Do one task in this process; peak memory in MB, seconds, and recovery error where there is one."""
    begin, result = time.perf_counter(), {}
    if task != "python":
        import dmf
    if task not in ("python", "import"):
        with np.load(path) as file:
            rows, cols, values, u, v = (file[name] for name in ("rows", "cols", "values", "u", "v"))
        observations = dmf.SampledEntries(rows, cols, values, (D, D))
        if task == "descend":
            top = float(observations.surrogate_svd(1)[1][0])
            network = dmf.spectral_network(observations, RANK_HAT, scale=(top / 4) ** (1 / 3))
            step = 0.5 / dmf.solvers.largest_curvature(observations, network)
            found = dmf.gradient_descent(observations, network, step, iterations=ITERATIONS)
        elif task == "complete":
            if not hasattr(dmf, "complete"):
                return {}
            found = dmf.complete(observations, rank=RANK, iterations=ITERATIONS)
        if task in ("descend", "complete"):
            result["seconds"] = time.perf_counter() - begin
            result["recovery_error"] = recovery_error(*found.model.factors(), u, v)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mb": peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024), **result}


def generate(path: Path) -> None:
    """Write the problem to a file."""
    case = sampled_low_rank(0, (D, D), RANK, SAMPLES / (RANK * (2 * D - RANK)))
    np.savez(path, **{name: case[name] for name in ("rows", "cols", "values", "u", "v")})


@click.command()
@click.option("--task", type=click.Choice(["generate", *TASKS]), hidden=True, help="What a child process does.")
@click.option("--path", type=click.Path(path_type=Path), hidden=True, help="File of the problem.")
def main(task: str | None, path: Path | None) -> None:
    """Measure peak memory and write results/peak_memory.json."""
    if task == "generate":
        return generate(path)
    if task is not None:
        return print(json.dumps(child(task, path)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.npz")
        results = {name: in_process(name, path) for name in ("generate", *TASKS)}
        del results["generate"]
        with np.load(path) as file:
            data_mb = sum(file[name].nbytes for name in ("rows", "cols", "values")) / 1e6
    print(f"{D:,} x {D:,}, rank {RANK}, {SAMPLES:,} samples: {data_mb:.0f} MB of data, target < {TARGET_MB} MB")
    measured = {TASKS[name]: result for name, result in results.items() if result}
    table = [
        [name, f"{r['peak_mb']:.0f}", *(f"{r[key]:.2g}" if key in r else "-" for key in ("seconds", "recovery_error"))]
        for name, r in measured.items()
    ]
    print_table(["in a fresh process", "peak MB", "s", "error"], table)
    if not results["complete"]:
        print("dmf.complete is not there: its row is left out.")
    write_result("peak_memory", {"data_mb": data_mb, "iterations": ITERATIONS, "tasks": measured})
    return None


def in_process(task: str, path: Path) -> dict[str, float]:
    """What `child` returns in a fresh process."""
    command = [sys.executable, __file__, "--task", task, "--path", str(path)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output) if output else {}


if __name__ == "__main__":
    main()
