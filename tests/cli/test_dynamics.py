"""dmf dynamics: the pictures and the numbers of how the networks learn."""

import json
from pathlib import Path

import numpy as np
import pytest

from cli.program import as_json, error_line

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("problem", ["factorization", "completion", "sensing"])
def test_dynamics(dmf_program, tmp_path, problem):
    """Large singular values first, near the predicted times; the compressed network ahead; eight pictures."""
    report = as_json(dmf_program("dynamics", "--problem", problem, "--size", 30, "--rank", 2, "-o", tmp_path, "--json"))
    assert len(report["pictures"]) == 8
    for picture in report["pictures"]:
        assert Path(picture).read_bytes().startswith(PNG)
    times = np.array([[row["predicted"], row["original"], row["compressed"]] for row in report["table"]])
    assert (np.diff(times, axis=0) > 0).all()
    assert (times[:, 2] <= times[:, 1]).all()
    np.testing.assert_allclose(times[:, 2], times[:, 0], rtol=0.25)
    numbers = json.loads((tmp_path / f"dynamics-{problem}.json").read_text())
    assert set(numbers["histories"]) == {"original", "compressed"}
    if problem == "factorization":
        assert report["ordering"].startswith("compressed <= original held")


def test_rank_bound(dmf_program):
    line = error_line(dmf_program("dynamics", "--rank", 15, "--size", 30, code=1))
    assert "rank=15" in line and "size / 2 = 15" in line
