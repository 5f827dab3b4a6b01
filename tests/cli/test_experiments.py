"""The paper's experiments as commands: what takes a second or two here, the others in tests/slow."""

import json
import math
from pathlib import Path

import pytest

from dmf.experiments.catalogue import EXPERIMENTS
from dmf.experiments.results import Experiment

from cli.program import error_line

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["alpha", "factorization", "depth"])
def test_reproduce_small(dmf_program, tmp_path, experiment):
    done = dmf_program("reproduce", experiment, "--small", "-o", tmp_path)
    assert "iterations" in done.stdout
    assert (tmp_path / f"{experiment}.png").read_bytes().startswith(PNG)
    numbers = json.loads((tmp_path / f"{experiment}.json").read_text())
    table = {row["network"]: row for row in numbers["table"]}
    assert all(row["outcome"] in ("TOLERANCE", "BUDGET") for row in table.values())
    assert all(len(curve["error"]) == len(curve["iteration"]) > 2 for curve in numbers["curves"])
    assert all(claim["verdict"] == "same in kind" for claim in numbers["claims"])
    if experiment == "factorization":
        assert (
            table["original"]["error"] < 1e-6
        )  # all components; what is left is the start, in directions it never learns
        assert "exact compression" in done.stdout
        assert table["compressed"]["error"] <= table["original"]["error"]  # the paper's claim
        assert table["compressed"]["parameters"] < table["original"]["parameters"] / 2
    if experiment == "alpha":  # the larger the outer scale, the fewer iterations, and all converge
        iterations = [row["iterations"] for name, row in table.items() if name.startswith("outer scale")]
        assert iterations == sorted(iterations, reverse=True)
        assert {row["outcome"] for row in table.values()} == {"TOLERANCE"}
    if experiment == "depth":  # the published start of the compressed network of depth 2 is a handicap
        assert table["compressed, depth 2, start 1"]["error"] > 2 * table["compressed, depth 2, start 0.01"]["error"]
        assert table["compressed, depth 3, start 0.01"]["error"] < 1e-5 > table["original, depth 3"]["error"]


def test_reproduce_makes_its_folder_or_says_why_not_before_it_works(dmf_program, tmp_path):
    dmf_program("reproduce", "completion", "--small", "-o", tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "completion.json").is_file()
    (tmp_path / "file").write_text("")
    done = dmf_program("reproduce", "completion", "--small", "-o", tmp_path / "file" / "folder", code=1)
    assert "Error: FileError: cannot make the folder" in done.stderr


def test_reproduce_all(dmf_program, tmp_path, monkeypatch):
    """One table over all experiments and seeds, as text, as JSON and on a page that holds the pictures."""
    monkeypatch.setattr("dmf_cli.paper.ALL", ("completion",))
    done = dmf_program("reproduce", "all", "--small", "--seeds", 2, "-o", tmp_path)
    assert "1 of 1 published numbers agree" in done.stdout
    report = json.loads((tmp_path / "all.json").read_text())
    assert report["seeds"] == [0, 1]
    (row,) = report["table"]
    assert row["experiment"] == "completion"
    assert row["least"] <= row["ours"] <= row["most"]
    one = json.loads((tmp_path / "completion.json").read_text())["claims"][0]
    assert one["ours"] in (row["least"], row["most"])
    page = (tmp_path / "all.html").read_text()
    assert page.count("<img ") == 1
    assert "<td>same in kind</td>" in page


def test_only_published_numbers_are_counted(dmf_program, tmp_path, monkeypatch):
    """A number of ours that was not reached, and for which none is published, is a dash in the table and counts for nothing."""

    def made_up(small, seed, progress, checkpoint):
        found = Experiment("made-up", "Made up", "error", {}, small)
        found.quotient("old over new", 2.0, 3.0)
        found.finding("share", math.nan)
        return found

    monkeypatch.setitem(EXPERIMENTS, "made-up", made_up)
    monkeypatch.setattr("dmf.experiments.everything.draw", lambda result, path: path.write_bytes(b""))
    monkeypatch.setattr("dmf_cli.paper.ALL", ("made-up",))
    done = dmf_program("reproduce", "all", "--small", "-o", tmp_path)
    assert "1 of 1 published numbers agree" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "share" in line)
    assert line.split() == ["made-up", "share", "-", "-", "-", "not", "reached"]
    assert "nan" not in (tmp_path / "all.html").read_text()


def test_only_all_takes_several_seeds(dmf_program):
    assert "--seeds is only for all" in dmf_program("reproduce", "depth", "--seeds", 2, code=2).stderr


@pytest.mark.parametrize(
    ("experiment", "cut"),
    [
        pytest.param("alpha", 120, marks=pytest.mark.slow),
        pytest.param("adaptation", 30, marks=pytest.mark.slow),
        pytest.param("all", 300, marks=pytest.mark.campaign),
    ],
)
def test_an_experiment_goes_on_from_its_checkpoint(dmf_program, monkeypatch, experiment, cut):
    """Killed in its second half: all numbers but the seconds are those of one that was not."""
    command = ["reproduce", experiment, "--small"]
    dmf_program(*command, "-o", "whole")
    calls = 0

    def killed(self, label, snapshot):
        nonlocal calls
        calls += 1
        if calls == cut:
            raise MemoryError

    kept = ["-o", "cut", "--checkpoint", "c.npz", "--checkpoint-every", 0.1, "--resume"]
    with monkeypatch.context() as patched:
        patched.setattr("dmf_cli.paper.Progress.__call__", killed)
        dmf_program(*command, *kept, code=1)
        before = calls
        dmf_program(*command, *kept)
    whole, again = (json.loads(Path(folder, f"{experiment}.json").read_text()) for folder in ("whole", "cut"))
    for rows in (
        *(found.get("table", ()) for found in (whole, again)),
        *(found.get("curves", ()) for found in (whole, again)),
    ):
        for row in rows:
            row.pop("seconds", None)
    assert whole == again
    assert before == cut < calls


def test_data_is_for_movielens_only(dmf_program, ratings):
    assert "--data is only for" in dmf_program("reproduce", "depth", "--data", ratings, code=2).stderr


def test_published_is_for_the_one_experiment_with_two_protocols(dmf_program):
    assert "--published is only for" in dmf_program("reproduce", "depth", "--published", code=2).stderr


def test_dynamics_need_ranks_below_half_of_the_size(dmf_program):
    line = error_line(dmf_program("dynamics", "--rank", 15, "--size", 30, code=1))
    assert "rank=15" in line and "size / 2 = 15" in line


@pytest.mark.parametrize("experiment", ["fashion-mnist", "adaptation"])
def test_a_folder_without_images(experiment, dmf_program, tmp_path):
    line = error_line(dmf_program("reproduce", experiment, "--data", tmp_path, code=1))
    assert "cannot find train-images-idx3-ubyte" in line
    assert list(tmp_path.iterdir()) == []
