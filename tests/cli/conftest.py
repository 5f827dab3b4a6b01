import subprocess

import numpy as np
import pytest

from cli.program import PROGRAM


@pytest.fixture
def dmf_program(tmp_path):
    """Run the installed program in an empty folder, as a user would."""
    assert PROGRAM.exists(), f"the program {PROGRAM} is not installed"

    def run(*arguments, code=0, **options):
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

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
