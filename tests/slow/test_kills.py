"""Killed at any moment, a program leaves the old file or the new one, never a part of one."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

import dmf

from cli.program import PROGRAM

KILLS = [20, pytest.param(2000, marks=pytest.mark.campaign)]
SAVES = """
import sys
import dmf, numpy
models = [dmf.factorize(numpy.full((300, 300), value), 1).with_ids(map(str, range(300)), None) for value in (1.0, 2.0)]
print("ready", flush=True)
while True:
    for model in models:
        model.save(sys.argv[1])
"""


@pytest.mark.parametrize("kills", KILLS)
def test_a_file_that_is_being_saved(kills, tmp_path, rng):
    path = tmp_path / "model.npz"
    for _ in range(kills):
        with subprocess.Popen([sys.executable, "-c", SAVES, path], stdout=subprocess.PIPE) as saving:
            assert saving.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.1))
            saving.kill()
        if path.exists():  # else killed before the first was there
            assert round(dmf.load(path).product()[0, 0], 6) in (1.0, 2.0)
    assert path.exists()


@pytest.mark.parametrize("kills", KILLS)
def test_a_command_that_replaces_its_model(kills, dmf_program, ratings, tmp_path, rng):
    """The old model with its report, or the new model."""
    arguments = ["complete", ratings, "--rank", "2", "--iterations", "50", "-o", "m.npz"]
    dmf_program(*arguments)
    ranks = {2: dmf.load(tmp_path / "m.npz").product()}
    arguments[3] = "3"
    begin = time.monotonic()
    subprocess.run([PROGRAM, *arguments], cwd=tmp_path, check=True, capture_output=True)
    seconds = time.monotonic() - begin
    ranks[3] = dmf.load(tmp_path / "m.npz").product()
    for k in range(kills):
        arguments[3] = str(2 + k % 2)
        with subprocess.Popen(
            [PROGRAM, *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            time.sleep(rng.uniform(0.5, 1.1) * seconds)
            running.kill()
        found = dmf.load(tmp_path / "m.npz").product()
        assert any(np.array_equal(found, product) for product in ranks.values())
        assert json.loads((tmp_path / "m.json").read_text())["shape"] == [60, 50]
