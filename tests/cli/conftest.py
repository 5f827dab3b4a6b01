import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner

from dmf_cli.commands import program

from cli.program import PROGRAM


@dataclass(frozen=True)
class Done:
    """What a command left, under the names of `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def checked(done, code):
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def dmf_program(tmp_path, monkeypatch):
    """Run a command in an empty folder, within this process: a start of the program takes a second."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        done = CliRunner().invoke(program, [*map(str, arguments)], prog_name="dmf", catch_exceptions=False)
        return checked(Done(done.exit_code, done.stdout, done.stderr), code)

    return run


@pytest.fixture
def started_program(tmp_path):
    """Start the installed program in an empty folder, as a user would: for what signals, streams and the environment do."""
    assert PROGRAM.exists(), f"the program {PROGRAM} is not installed"

    def run(*arguments, code=0, **options):
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300, "check": False} | options
        return checked(subprocess.run([PROGRAM, *map(str, arguments)], **options), code)

    return run


@pytest.fixture
def ratings(tmp_path):
    """A file of 2,000 entries of a 60 x 50 matrix: row and column offsets, a rank-2 part and noise."""
    rng = np.random.default_rng(0)
    rows, cols = np.divmod(rng.choice(3000, 2000, replace=False), 50)
    signal = 3 + rng.standard_normal(60)[:, None] + rng.standard_normal(50)
    signal = signal + rng.standard_normal((60, 2)) @ rng.standard_normal((2, 50))
    path = tmp_path / "ratings.csv"
    lines = [f"u{i},film {j},{signal[i, j] + 0.1 * rng.standard_normal():.4f}" for i, j in zip(rows, cols, strict=True)]
    path.write_text("user,item,rating\n" + "\n".join(lines) + "\n")
    return path
