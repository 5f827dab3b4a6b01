"""--device: where the commands that solve compute."""

import os

import numpy as np
import pytest

from cli.program import as_json, error_line

COMMANDS = ("complete", "factorize", "sense")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')", "CuPy is not installed"),
        ("raise ImportError('libcudart is missing')", "CuPy does not work here (ImportError: libcudart is missing)"),
    ],
)
def test_without_cupy_a_device_is_an_error_of_one_line(command, line, message, dmf_program, tmp_path):
    """Before the file is read, and nothing is written."""
    (tmp_path / "cupy.py").write_text(line)
    (tmp_path / "data.npy").write_bytes(b"")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = dmf_program(command, "data.npy", "--device", "cuda", code=1, env=environment)
    assert message in error_line(done)
    assert "pip install 'dmf[cuda13]'" in error_line(done)
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"cupy.py", "data.npy"}


def test_a_device_of_another_name(dmf_program, ratings):
    assert "device='gpu', but it is" in error_line(dmf_program("complete", ratings, "--device", "gpu", code=1))


def test_the_cpu_is_the_default(dmf_program, tmp_path):
    np.save(tmp_path / "m.npy", np.outer(np.arange(4.0), np.arange(1.0, 4.0)))
    reports = [as_json(dmf_program("factorize", "m.npy", "--json", *more)) for more in ((), ("--device", "cpu"))]
    assert reports[0]["options"] == reports[1]["options"]
