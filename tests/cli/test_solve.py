"""dmf complete, predict, info, factorize and sense, as a program."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

import dmf
from dmf.arrays.threads import thread_count
from dmf.recovery import HeldOut
from dmf.solvers import Outcome
from dmf_cli.commands import program

from cli.program import PROGRAM, as_json, error_line


def test_complete_predict_and_info(dmf_program, ratings, tmp_path):
    """Ratings with text ids to a model, a report, and predictions with the ids as given."""
    done = dmf_program("complete", ratings, "--rank", 4, "-o", "model.npz")
    assert "comma-separated" in done.stdout and "header" in done.stdout
    assert "2,000 entries of a 60 x 50 matrix" in done.stdout
    assert done.stderr == ""  # no progress where stderr is no terminal
    report = json.loads((tmp_path / "model.json").read_text())
    assert report["heldout"]["count"] == 200
    assert 0.08 < report["heldout"]["rmse"] < 0.3  # the noise has 0.1, the values spread by 2
    assert report["found"]["offsets"] is True and report["success"] is True

    (tmp_path / "pairs.csv").write_text("user,item,comment\nu3,film 7,hello\nu59,film 49,\nnobody,film 7,\n")
    done = dmf_program("predict", "model.npz", "pairs.csv", "-o", "out.csv")
    assert "1 pairs have a row or column that was not in the data" in done.stdout
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["column"]) for row in rows] == [("u3", "film 7"), ("u59", "film 49"), ("nobody", "film 7")]
    model = dmf.load(tmp_path / "model.npz")
    expected, _ = model.predict_named([row["row"] for row in rows], [row["column"] for row in rows])
    np.testing.assert_array_equal([float(row["prediction"]) for row in rows], expected)
    piped = dmf_program("predict", "model.npz", "pairs.csv", "-o", "-")
    assert piped.stdout == (tmp_path / "out.csv").read_text()

    shown = as_json(dmf_program("info", "model.npz", "--json"))
    assert shown["shape"] == [60, 50] and shown["offsets"] is True
    assert shown["named_rows"] is shown["named_columns"] is True
    assert "60 x 50" in dmf_program("info", "model.npz").stdout


def test_outliers_are_named(dmf_program, tmp_path):
    rng = np.random.default_rng(0)
    table = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    wrong = table.copy()
    wrong[3, 5] += 50
    lines = [f"r{i},c{j},{wrong[i, j]}" for i in range(40) for j in range(30) if (i + j) % 3]
    (tmp_path / "t.csv").write_text("row,column,value\n" + "\n".join(lines) + "\n")
    done = dmf_program("complete", "t.csv", "--outliers", "-o", "m.npz")
    assert "r3, c5: +50 (row, column: excess)" in done.stdout
    report = json.loads((tmp_path / "m.json").read_text())
    [(row, column, excess)] = report["outliers"]
    assert (row, column, round(excess, 6)) == ("r3", "c5", 50)
    assert abs(dmf.load("m.npz").predict_named(["r3"], ["c5"])[0][0] - table[3, 5]) < 1e-6
    assert "1 entry was taken for an outlier" in dmf_program("info", "m.npz").stdout


def test_a_small_model_file_predicts_alike(dmf_program, ratings, tmp_path):
    pytest.importorskip("constriction", reason="small model files need constriction")
    dmf_program("complete", ratings, "--rank", 4, "--precision", "posterior")
    dmf_program("complete", ratings, "--rank", 4)
    small, full = (dmf.load(tmp_path / name) for name in ("ratings.dmfz", "ratings.dmf.npz"))
    assert np.sqrt(np.mean((small.product() - full.product()) ** 2)) < 0.1 * full.found.noise
    assert "60 x 50" in dmf_program("info", "ratings.dmfz").stdout


def test_complete_prints_one_json_object(dmf_program, ratings):
    report = as_json(dmf_program("complete", ratings, "--json", "--rank", 3, "--threads", 1))
    assert report["model"] == "ratings.dmf.npz"
    assert report["heldout"]["rmse"] > 0


def test_same_seed_same_model(dmf_program, ratings, tmp_path):
    """Also with another number of threads."""
    for name, threads in (("a", 1), ("b", thread_count())):
        dmf_program("complete", ratings, "--iterations", 200, "--seed", 5, "--threads", threads, "-o", f"{name}.npz")
    a, b = dmf.load(tmp_path / "a.npz"), dmf.load(tmp_path / "b.npz")
    for one, other in zip(a.factors(), b.factors(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_complete_without_holdout_uses_every_entry(dmf_program, ratings):
    report = as_json(dmf_program("complete", ratings, "--holdout", 0, "--json"))
    assert report["heldout"] is None


def test_factorize(dmf_program, tmp_path, rng):
    matrix = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 15))
    np.save(tmp_path / "m.npy", matrix)
    report = as_json(dmf_program("factorize", "m.npy", "--rank", 5, "--json"))
    assert report["relative_error"] < 1e-12
    model = dmf.load(tmp_path / "m.dmf.npz")
    np.testing.assert_allclose(model.product(), matrix, atol=1e-10)


def test_sense(dmf_program, tmp_path, rng):
    matrix = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    A = rng.standard_normal((250, 12, 10))
    np.savez(tmp_path / "s.npz", A=A, y=np.einsum("mij,ij->m", A, matrix))
    report = as_json(dmf_program("sense", "s.npz", "--rank", 4, "-o", "x.npz", "--json"))
    assert report["heldout_relative_error"] < 1e-12
    assert (report["found"]["rank"], report["found"]["noise"], report["found"]["exact"]) == (2, 0.0, True)
    np.testing.assert_allclose(dmf.load(tmp_path / "x.npz").product(), matrix, atol=1e-10)


@contextlib.contextmanager
def at_work(folder, *arguments):
    """The program, once its progress on a terminal tells that the solver is at work, and a function for what it shows."""
    screen, terminal = os.openpty()
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # jobs in the background of a shell ignore it
    shown = b""

    def rest():
        nonlocal shown
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(screen, 1000):
                shown += more
        return shown

    with subprocess.Popen(
        [PROGRAM, *arguments], cwd=folder, preexec_fn=listening, stdout=subprocess.DEVNULL, stderr=terminal
    ) as running:
        os.close(terminal)
        try:
            while not re.search(rb"iteration [1-9]", shown):
                shown += os.read(screen, 1000)
            yield running, rest
        finally:
            running.kill()
            os.close(screen)


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are of POSIX")
def test_progress_tells_what_is_done_unless_it_is_to_be_quiet(tmp_path, rng):
    """Reading, sorting, preparing and the fits by name, with the error and the noise in the units of the data."""
    noise = rng.standard_normal((300, 300))
    np.save(tmp_path / "noise.npy", np.where(rng.random(noise.shape) < 0.05, noise, np.nan))
    command = ["complete", "noise.npy", "--rank", "20", "--no-offsets", "-o", "m.npz"]
    with at_work(tmp_path, *command) as (running, rest):
        shown = rest()
        assert running.wait(60) == 0
    assert re.search(
        rb"(hold-out|final) fit, [a-z ]+: iteration \d+, RMSE [0-9.e-]+, noise [0-9.e-]+, \d+\.\d s", shown
    )
    screen, terminal = os.openpty()
    np.save(tmp_path / "noise.npy", noise[:20, :20])
    subprocess.run([PROGRAM, *command, "--quiet"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=terminal, check=True)
    os.close(terminal)
    with contextlib.suppress(OSError):
        assert os.read(screen, 10) == b""
    os.close(screen)


def test_verbose_tells_of_every_run(dmf_program, ratings):
    told = dmf_program("complete", ratings, "--rank", 3, "--iterations", 40, "-v").stdout
    assert re.search(r"hold-out fit, .*: rank \d+, noise [0-9.e-]+, \d+ iterations", told)
    assert "final fit" in told and "(as held-out entries decide)" in told


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently on Windows")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.slow)])
def test_a_request_to_end_writes_the_last_good_state(tmp_path, rng, name, code):
    """A finished model file marked as interrupted, and a checkpoint to go on from; no traceback.

    Noise of so many components keeps it busy for seconds.
    """
    noise = rng.standard_normal((800, 800))
    np.save(tmp_path / "noise.npy", np.where(rng.random(noise.shape) < 0.05, noise, np.nan))
    command = ["complete", "noise.npy", "--rank", "60", "--no-offsets", "-o", "m.npz", "--holdout", "0"]
    with at_work(tmp_path, *command, "--iterations", "1000000000", "--checkpoint", "c.npz") as (running, rest):
        running.send_signal(getattr(signal, name))
        shown = rest()
        assert running.wait(60) == code, shown
    assert b"interrupted; the last good state was written to m.npz" in shown
    assert b"--checkpoint c.npz --resume" in shown
    assert b"Traceback" not in shown
    model = dmf.load(tmp_path / "m.npz")
    assert model.outcome is Outcome.INTERRUPTED
    assert all(np.isfinite(weight).all() for weight in model.network.weights)
    assert (tmp_path / "c.npz").exists()


def test_a_command_goes_on_from_its_checkpoint(dmf_program, ratings, monkeypatch, tmp_path):
    """Killed in the middle of the second fit, it ends with the model of an uninterrupted one."""
    command = ["complete", ratings, "--rank", 3, "--iterations", 20]
    dmf_program(*command, "-o", "whole.npz")
    calls = len(dmf.load(tmp_path / "whole.npz").history.iteration)

    def killed(self, snapshot):
        nonlocal calls
        calls -= 1
        if not calls:
            raise MemoryError

    kept = ["--checkpoint", "c.npz", "--checkpoint-every", 0.05]
    with monkeypatch.context() as patched:
        patched.setattr("dmf_cli.solve.Progress.solver", killed)
        dmf_program(*command, "-o", "m.npz", *kept, "--resume", code=1)
    assert not (tmp_path / "m.npz").exists()
    assert "Pass resume=True (--resume)" in error_line(dmf_program(*command, "-o", "m.npz", *kept, code=1))
    dmf_program(*command, "-o", "m.npz", *kept, "--resume")
    one, other = (dmf.load(tmp_path / name) for name in ("whole.npz", "m.npz"))
    for name in ("u", "s", "vt"):
        np.testing.assert_array_equal(getattr(one.model, name), getattr(other.model, name))
    assert "seed is 1, there 0" in error_line(dmf_program(*command, *kept, "--resume", "--seed", 1, code=1))
    dmf_program(*command, "--resume", code=2)
    dmf_program(*command, "--checkpoint-every", 5, code=2)
    dmf_program(*command, "--checkpoint", "ratings.csv", "--resume", code=1)
    dmf_program(*command, "-o", "m.npz", "--checkpoint", "m.npz", "--resume", code=1)
    dmf_program(*command, "-o", "new.npz", "--checkpoint", "new.npz", code=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b,c\n1,2,x\n", "line 2"),
        ("", "empty"),
        ("1,2\n3,4\n", "2 columns"),
        ("1,2,nan\n", "line 1"),
    ],
)
def test_bad_files(dmf_program, tmp_path, content, words):
    (tmp_path / "bad.csv").write_text(content)
    line = error_line(dmf_program("complete", "bad.csv", code=1))
    assert "bad.csv" in line and words in line
    assert not (tmp_path / "bad.dmf.npz").exists()


def test_bad_arguments(dmf_program, ratings, tmp_path):
    assert "RankError: rank=500" in error_line(dmf_program("complete", ratings, "--rank", 500, code=1))
    assert "Invalid value for '--rank'" in dmf_program("complete", ratings, "--rank", 0, code=2).stderr
    assert "is a directory" in dmf_program("complete", tmp_path, code=2).stderr
    assert "does not exist" in dmf_program("complete", "missing.csv", code=2).stderr
    assert "No such file or directory" in error_line(dmf_program("complete", ratings, "-o", "no/where.npz", code=1))
    assert "it is a folder" in error_line(dmf_program("complete", ratings, "-o", tmp_path, code=1))
    assert "threads=9999" in error_line(dmf_program("complete", ratings, "--threads", 9999, code=1))
    assert "No such command" in dmf_program("solve", code=2).stderr
    (tmp_path / "model.npz").write_bytes(b"PK nonsense")
    assert "cannot read model.npz" in error_line(dmf_program("info", "model.npz", code=1))
    assert "Traceback" in dmf_program("info", "model.npz", "--debug", code=1).stderr


@pytest.mark.parametrize("command", ["complete", "rank", "factorize", "sense", "info", "predict"])
def test_a_dash_is_no_file_to_read(command):
    done = CliRunner().invoke(program, [command, "-", *["-o", "o.csv"] * (command == "predict")])
    assert done.exit_code == 2 and "- does not stand for stdin here" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no name for stdin")  # noqa: PTH110
def test_entries_from_a_pipe_by_the_name_of_stdin(started_program, ratings, tmp_path):
    """What the message about the dash advises."""
    done = started_program("complete", "/dev/stdin", "-o", "m.npz", input=ratings.read_text())
    assert "2,000 entries of a 60 x 50 matrix" in done.stdout and dmf.load(tmp_path / "m.npz").shape == (60, 50)


def test_unknown_ids_without_offsets(dmf_program, ratings, tmp_path):
    dmf_program("complete", ratings, "--no-offsets", "--iterations", 50, "-o", "m.npz")
    (tmp_path / "p.csv").write_text("u1,film 1\nnobody,film 1\n")
    done = dmf_program("predict", "m.npz", "p.csv", "-o", "o.csv")
    assert "no prediction, the model has no offsets" in done.stdout
    assert (tmp_path / "o.csv").read_text().splitlines()[-1] == "nobody,film 1,"
    (tmp_path / "p.csv").write_text("nobody,nothing\nsomebody,none\n")  # of no name known the file is a wrong one
    assert "nobody" in error_line(dmf_program("predict", "m.npz", "p.csv", "-o", "none.csv", code=1))
    assert not (tmp_path / "none.csv").exists()


def test_intervals_and_bounds(dmf_program, ratings, tmp_path):
    """Saved with the model: predictions within bounds, intervals that hold 90 % and end at the bounds; told by info."""
    done = dmf_program("complete", ratings, "-o", "m.npz", "--bounds", "1,4.5", "--holdout", 0.2)
    assert "predictions between 1 and 4.5" in done.stdout and "on 400 entries, by a fit without them" in done.stdout
    model = dmf.load(tmp_path / "m.npz")
    assert model.bounds == (1, 4.5)
    half = json.loads((tmp_path / "m.json").read_text())["heldout"]["interval_90"]
    assert f"prediction +- {half:.4g}" in done.stdout
    lines = ratings.read_text().splitlines()[1:]
    (tmp_path / "p.csv").write_text("".join(f"{line}\n" for line in [*lines, "nobody,film 1,0"]))
    dmf_program("predict", "m.npz", "p.csv", "-o", "o.csv", "--interval", 0.9)
    with (tmp_path / "o.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[-1]["row"], rows[-1]["low"], rows[-1]["high"]) == ("nobody", "", "") and rows[-1]["prediction"]
    low, at, high = (np.array([float(row[name]) for row in rows[:-1]]) for name in ("low", "prediction", "high"))
    assert at.min() == 1 and at.max() == 4.5
    np.testing.assert_allclose(low, np.maximum(at - half, 1))
    np.testing.assert_allclose(high, np.minimum(at + half, 4.5))
    shown = dmf_program("info", "m.npz").stdout
    assert "1 to 4.5" in shown and f"prediction +- {half:.4g}" in shown and "on 400 entries" in shown
    assert max(map(len, shown.splitlines())) < 250
    done = dmf_program("predict", "m.npz", "--top", 1, "--rows", "u3", "--interval", 0.5, "-o", "-", code=2)
    assert "--interval does not go with --top" in done.stderr


@pytest.mark.parametrize("bounds", ["1", "a,b", "1,2,3", ""])
def test_bounds_that_are_none(dmf_program, ratings, bounds):
    assert "no pair of numbers" in dmf_program("complete", ratings, "--bounds", bounds, code=2).stderr


@pytest.mark.parametrize("bounds", ["5,1", "nan,nan", "1,1"])
def test_bounds_out_of_order_are_refused_before_the_file_is_read(dmf_program, tmp_path, bounds):
    (tmp_path / "bad.csv").write_text("")
    assert (
        "Invalid value for '--bounds': bounds=("
        in dmf_program("complete", "bad.csv", "--bounds", bounds, code=2).stderr
    )


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("complete", ["both.npz"], "FILE and the model"),
        ("complete", ["./sub/../both.npz"], "FILE and the model"),
        ("complete", ["t.csv"], "FILE and the filled table"),
        ("complete", ["both.csv", "--model", "both.csv"], "the model and the filled table"),
        ("complete", ["same.png", "--report", "same.png"], "the model and the report"),
        ("complete", ["f.csv", "--report", "t.csv"], "FILE and the report"),
        ("complete", ["m.npz", "--report", "m.json"], "the JSON beside the model and the report"),
        ("factorize", ["both.npz"], "FILE and the model"),
        ("sense", ["both.npz"], "FILE and the model"),
    ],
)
def test_files_that_would_overwrite_each_other(dmf_program, tmp_path, command, arguments, words):
    """Nothing is read or written."""
    (tmp_path / "sub").mkdir()
    name = "t.csv" if "t.csv" in arguments else "both.npz"
    (tmp_path / name).write_text("")
    assert f"is both {words}" in " ".join(dmf_program(command, name, "-o", *arguments, code=2).stderr.split())
    assert {path.name for path in tmp_path.iterdir()} == {name, "sub"}


def test_predictions_over_their_model_or_a_picture_over_its_data(dmf_program, tmp_path):
    (tmp_path / "m.npz").write_text("")
    (tmp_path / "p.png").write_text("")
    assert "both MODEL and the output" in dmf_program("predict", "m.npz", "p.png", "-o", "m.npz", code=2).stderr
    assert "both FILE and the picture" in dmf_program("rank", "p.png", "--plot", "p.png", code=2).stderr


def test_a_single_entry_is_fitted_without_a_hold_out(dmf_program, tmp_path):
    """Unless the user gave a share, which is then impossible."""
    (tmp_path / "one.csv").write_text("a,b,2.5\n")
    done = dmf_program("complete", "one.csv")
    assert done.stdout.count("nothing is held out") == 1
    assert dmf.load(tmp_path / "one.dmf.npz").shape == (1, 1)
    assert "a split needs at least 2" in error_line(dmf_program("complete", "one.csv", "--holdout", 0.1, code=1))
    np.savez(tmp_path / "s.npz", A=np.ones((1, 1, 1)), y=np.ones(1))
    assert "heldout_relative_error" not in as_json(dmf_program("sense", "s.npz", "--json"))


def test_a_number_of_many_digits_names_no_row(dmf_program, tmp_path):
    dmf.factorize(np.outer(np.arange(1.0, 4.0), np.ones(3))).save(tmp_path / "m.npz")
    (tmp_path / "p.csv").write_text(f"{'9' * 5000},9\n1,2\n")
    done = dmf_program("predict", "m.npz", "p.csv", "-o", "o.csv")
    assert (
        "is taken as a pair" in done.stdout and "1 pairs have a row or column that was not in the data" in done.stdout
    )
    assert [line.rpartition(",")[2] != "" for line in (tmp_path / "o.csv").read_text().splitlines()[1:]] == [
        False,
        True,
    ]
    (tmp_path / "p.csv").write_text("from,to\n1,2\n")
    dmf_program("predict", "m.npz", "p.csv", "-o", "o.csv")  # the first line is a header
    assert (tmp_path / "o.csv").read_text().splitlines()[1].startswith("1,2,")


def test_info_tells_names_of_rows_and_columns_apart(dmf_program, tmp_path):
    dmf.factorize(np.eye(3)).with_ids(None, ("a", "b", "c")).save(tmp_path / "m.npz")
    shown = as_json(dmf_program("info", "m.npz", "--json"))
    assert (shown["named_rows"], shown["named_columns"]) == (False, True)


def test_info_of_an_error_beyond_any_float(dmf_program, tmp_path):
    recovery = dmf.factorize(np.eye(3))
    replace(recovery, heldout=HeldOut(np.inf, np.nan, 1, (1e308,))).save(tmp_path / "m.npz")
    assert "held-out" not in dmf_program("info", "m.npz").stdout


def test_what_intervals_need(dmf_program, ratings, tmp_path):
    done = dmf_program("complete", ratings, "-o", "m.npz", "--holdout", 0, "--bounds", "0,")
    assert "held-out" not in done.stdout and "between 0 and inf" in done.stdout
    (tmp_path / "p.csv").write_text("u1,film 1\n")
    arguments = ["predict", "m.npz", "p.csv", "-o", "o.csv", "--interval"]
    assert "--holdout" in error_line(dmf_program(*arguments, 0.9, code=1))
    assert "Invalid value for '--interval'" in dmf_program(*arguments, 1, code=2).stderr
    assert not (tmp_path / "o.csv").exists()


def test_features_tell_of_rows_without_entries(dmf_program, tmp_path):
    rng = np.random.default_rng(0)
    ages, kinds = rng.standard_normal(60), rng.integers(3, size=40)
    lines = [
        f"u{i},c{j},{2 * ages[i] + kinds[j] + 0.2 * rng.standard_normal():.4f}"
        for i in range(50)
        for j in range(40)
        if rng.random() < 0.3
    ]
    (tmp_path / "r.csv").write_text("\n".join(["user,item,value", *lines]))
    (tmp_path / "u.csv").write_text("\n".join(["user,age", *(f"u{i},{ages[i]}" for i in range(60))]))
    (tmp_path / "i.csv").write_text("\n".join(["item,kind", *(f"c{j},kind {kinds[j]}" for j in range(40))]))
    model = tmp_path / "m.npz"
    features = "--row-features", tmp_path / "u.csv", "--column-features", tmp_path / "i.csv"
    done = dmf_program("complete", tmp_path / "r.csv", "-o", model, *features)
    assert "age (number)" in done.stdout
    recovery = dmf.load(model)
    assert recovery.shape == (60, 40)
    found, known = recovery.predict_named([f"u{i}" for i in range(50, 60)], ["c0"] * 10)
    assert known.all()
    np.testing.assert_allclose(found, 2 * ages[50:] + kinds[0], atol=0.5)
