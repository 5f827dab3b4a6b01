"""--device: where the commands that solve compute."""

import sys
import time

import numpy as np
import pytest

import dmf
from dmf.arrays.backend import cupy_module
from dmf_cli.common import compare_ranks

from cli.program import as_json, error_line

COMMANDS = ("complete", "factorize", "sense", "rank")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')", "CuPy is not installed"),
        ("raise ImportError('libcudart is missing')", "CuPy does not work here (ImportError: libcudart is missing)"),
    ],
)
def test_without_cupy_a_device_is_an_error_of_one_line(command, line, message, dmf_program, tmp_path, monkeypatch):
    """Before the file is read, and nothing is written."""
    (tmp_path / "cupy.py").write_text(line)
    (tmp_path / "data.npy").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    cupy_module.cache_clear()  # it keeps the module where there is one
    done = dmf_program(command, "data.npy", "--device", "cuda", code=1)
    assert message in error_line(done)
    assert "pip install 'dmf[cuda13]'" in error_line(done)
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"cupy.py", "data.npy"}


def test_ranks_are_compared_on_the_device(monkeypatch, capsys):
    """And what was found is shown, where stderr is a terminal."""
    entries = dmf.SampledEntries.from_dense(np.ones((3, 3)))
    moved, seen = entries.with_values(2 * entries.values), []

    def rank_path(data, callback, **options):
        seen.append((data, options))
        callback(dmf.completion.RankStep(3, 0.25, 0.1, 0.1, 3, 0.1, 1.5))
        time.sleep(0.5)  # the line appears after 0.4 s

    monkeypatch.setattr(dmf.SampledEntries, "to_device", lambda self, device: {"cuda:1": moved}[device])
    monkeypatch.setattr(dmf.completion, "rank_path", rank_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    compare_ranks(entries, "cuda:1", seed=7)
    assert seen == [(moved, {"seed": 7})]
    assert "rank 3 took 1.5 s: held-out RMSE 0.25" in capsys.readouterr().err


def test_a_device_of_another_name(dmf_program, ratings):
    assert "device='gpu', but it is" in error_line(dmf_program("complete", ratings, "--device", "gpu", code=1))


def test_the_cpu_is_the_default(dmf_program, tmp_path):
    np.save(tmp_path / "m.npy", np.outer(np.arange(4.0), np.arange(1.0, 4.0)))
    reports = [as_json(dmf_program("factorize", "m.npy", "--json", *more)) for more in ((), ("--device", "cpu"))]
    assert reports[0]["found"] == reports[1]["found"]
