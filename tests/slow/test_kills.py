"""Killed at any moment, a program leaves the old file or the new one, never a part of one."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import dmf
from dmf.solvers import Outcome

from cli.program import PROGRAM

KILLS = [20, pytest.param(2000, marks=pytest.mark.campaign)]
SOLVES = [20, pytest.param(200, marks=pytest.mark.campaign)]
SIGNALS = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"]
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


def noisy(rng):
    """Entries of a matrix of rank 6 under much noise."""
    matrix = rng.standard_normal((1500, 6)) @ rng.standard_normal((6, 1200)) + 2 * rng.standard_normal((1500, 1200))
    rows, cols = np.nonzero(rng.random(matrix.shape) < 0.05)
    return rows, cols, matrix


def scarce(rng):
    """Of a matrix of rank 4 without noise, 1.3 entries for each degree of freedom: many stages."""
    matrix = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 200))
    return *np.divmod(rng.choice(matrix.size, round(1.3 * 4 * 396), replace=False), 200), matrix


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently on Windows")
@pytest.mark.parametrize("kills", SOLVES)
def test_a_solve_that_is_killed_and_resumed(kills, started_program, tmp_path, rng):
    """The output is the old one, the new one or, after a request to end, one marked as interrupted; and resumed, the new one.

    Half of the solves are resumed to their end, the others are killed again. What a run left behind the next one takes away.
    """
    commands, whole, seconds = {}, {}, {}
    for make in (noisy, scarce):
        rows, cols, matrix = make(rng)
        name = make.__name__
        np.savez(tmp_path / f"{name}.npz", rows=rows, cols=cols, values=matrix[rows, cols], shape=matrix.shape)
        commands[name] = ["complete", f"{name}.npz", "--threads", "1", "-o", "m.npz"]
        started_program(*commands[name])  # kernels are compiled
        begin = time.monotonic()
        started_program(*commands[name])
        seconds[name], whole[name] = time.monotonic() - begin, dmf.load(tmp_path / "m.npz")
    counts = dict.fromkeys(SIGNALS, 0)
    for k in range(kills):
        name, sent = list(commands)[k % 2], SIGNALS[rng.integers(4)]
        kept = ["--checkpoint", f"{name}-kept.npz", "--checkpoint-every", "0.1", "--resume"]
        with subprocess.Popen(
            [PROGRAM, *commands[name], *kept],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # jobs in the background of a shell ignore it
        ) as running:
            time.sleep(rng.uniform(0.2, 1.1 * seconds[name]))
            running.send_signal(getattr(signal, sent))
            said, code = running.stderr.read().decode(), running.wait()
        counts[sent] += code != 0
        print(f"kill {k + 1}: {name}, {sent}, exit code {code}", flush=True)
        number = getattr(signal, sent)
        assert code in (0, -number, 128 + number), (sent, said)  # 0: it was quicker; -: before it listened
        assert "Traceback" not in said
        found = dmf.load(tmp_path / "m.npz")
        ended = [run.model.u for run in whole.values()]
        assert found.outcome is Outcome.INTERRUPTED or any(np.array_equal(found.model.u, u) for u in ended)
        assert json.loads((tmp_path / "m.json").read_text())["shape"] in ([1500, 1200], [200, 200])
        if code == 0 or rng.random() < 0.5:
            started_program(*commands[name], *kept)
            assert not list(tmp_path.glob(".dmf-*"))
            found = dmf.load(tmp_path / "m.npz")
            for part in ("u", "s", "vt"):
                np.testing.assert_array_equal(getattr(found.model, part), getattr(whole[name].model, part))
            assert (found.found, found.heldout.rmse) == (whole[name].found, whole[name].heldout.rmse)
            for left in tmp_path.glob(f"{name}-kept.npz*"):
                left.unlink()
    print(f"{kills} kills, of which ended a solve: {counts}")
