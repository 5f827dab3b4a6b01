"""How long does a newcomer wait, on a fresh machine?

Every command runs in a virtual environment made for this, with the package installed from here, an empty home folder and no
compiled kernel. Seconds of the clock, and of processor time. `import dmf` is given beyond a Python that imports nothing; the
others are whole commands, with Python's start. "second": the same command again, its kernels on disk; the best of three.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from cases import print_table, write_result

from ratings_data import movielens_100k

_REPOSITORY = Path(__file__).parents[1]
_TABLE = """
import numpy as np, dmf
rng = np.random.default_rng(0)
table = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 200)) + 0.1 * rng.standard_normal((300, 200))
table[rng.random(table.shape) > 0.3] = np.nan
dmf.complete(table)
"""


def timed(command: list[str], environment: dict[str, str], folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, ratings: Path) -> list[dict[str, object]]:
    """Times of each command, first and second."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python, program = (str(folder / "venv" / "bin" / name) for name in ("python", "dmf"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(_REPOSITORY)], check=True)
    home = folder / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}

    def run(*command: str) -> tuple[float, float]:
        return timed(list(command), environment, home)

    def clear() -> None:
        for compiled in folder.rglob("*.nb[ic]"):
            compiled.unlink()

    run(python, "-c", "import numpy, dmf, dmf.completion")  # bytecode, once
    nothing, package = (min(run(python, "-c", code)[1] for _ in range(5)) for code in ("", "import dmf"))
    rows: list[dict[str, object]] = [
        {
            "command": "import dmf, beyond Python's start",
            "target": "0.35 s of processor",
            "processor": package - nothing,
        }
    ]
    model = ["-o", str(home / "model.npz")]
    commands = {
        "dmf -h": ([program, "-h"], "0.7", "0.7"),
        "dmf info model.npz": ([program, "info", model[1]], "0.7", "0.7"),
        "dmf complete ml-100k.inter --holdout 0.2": ([program, "complete", str(ratings), "--holdout", "0.2"], "8", "2"),
        "dmf.complete of a 300 x 200 table": ([python, "-c", _TABLE], "5", ""),
        "dmf demo": ([program, "demo"], "13", ""),
    }
    run(program, "complete", str(ratings), *model)
    for name, (command, first, second) in commands.items():
        clear()
        for label, target in (("first", first), ("second", second)):
            seconds, processor = min(run(*command) for _ in range(1 if label == "first" else 3))
            rows.append({"command": name, "run": label, "target": target, "seconds": seconds, "processor": processor})
    return rows


@click.command()
def main() -> None:
    """Time the first commands of a fresh installation and write results/first_minute.json."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), movielens_100k())
    header = ["command", "run", "target", "seconds", "processor"]
    print_table(
        header, [[str(row.get(key, "")) if key in header[:3] else row.get(key, "") for key in header] for row in rows]
    )
    write_result("first_minute", {"rows": rows})


if __name__ == "__main__":
    main()
