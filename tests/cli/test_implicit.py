"""dmf complete --feedback implicit, and what dmf predict says of such a model."""

import csv

import numpy as np
import pytest

from cli.program import as_json, error_line


@pytest.fixture
def plays(tmp_path):
    """Songs of two kinds, listeners of two kinds, in a file."""
    rng = np.random.default_rng(0)
    table = rng.poisson(np.kron(np.eye(2), np.full((20, 10), 1.0)) + 0.02)
    lines = [f"u{i},s{j},{table[i, j]}" for i, j in zip(*np.nonzero(table), strict=True)]
    path = tmp_path / "plays.csv"
    path.write_text("user,song,plays\n" + "\n".join(lines) + "\n")
    return path


def test_songs_of_a_kind_are_recommended(dmf_program, plays, tmp_path):
    report = as_json(dmf_program("complete", plays, "--feedback", "implicit", "--report", "r.html", "--json"))
    assert report["weighting"]["ridge"] > 0 and report["ranking"]["ndcg"] > 0.2 and report["heldout"] is None
    assert "train_rmse" not in report and report["found"]["noise"] is None
    assert "not estimated" in (tmp_path / "r.html").read_text()
    shown = dmf_program("info", "plays.dmf.npz").stdout
    assert "held-out NDCG" in shown and "implicit feedback" in shown

    done = dmf_program("predict", "plays.dmf.npz", "--top", 2, "--rows", "u1,u39", "--seen", plays, "-o", "-")
    rows = [(row["row"], int(row["column"][1:])) for row in csv.DictReader(done.stdout.splitlines())]
    seen = {tuple(line.split(",")[:2]) for line in plays.read_text().splitlines()}
    assert all((user, f"s{song}") not in seen for user, song in rows)
    assert [user for user, song in rows if (song < 10) == (user == "u1")] == ["u1", "u1", "u39", "u39"]

    done = dmf_program("predict", "plays.dmf.npz", "--neighbours", 3, "--columns", "s2,s15", "-o", "n.csv")
    assert "6 similarities written" in done.stdout
    with (tmp_path / "n.csv").open() as file:
        found = [(row["column"], int(row["neighbour"][1:]) < 10) for row in csv.DictReader(file)]
    assert found == [("s2", True)] * 3 + [("s15", False)] * 3


def test_what_does_not_go_with_it(dmf_program, plays):
    implicit = ["complete", plays, "--feedback", "implicit"]
    assert "fills no table" in dmf_program(*implicit, "-o", "f.csv", code=2).stderr
    assert "Leave bounds out" in error_line(dmf_program(*implicit, "--bounds", "1,5", code=1))
    dmf_program(*implicit, "-o", "m.npz", "--holdout", 0)
    near = ["predict", "m.npz", "--neighbours", 2, "-o", "-"]
    assert "--columns alone" in dmf_program(*near, "--top", 1, code=2).stderr
    assert "1 of 1 columns were not in the data" in error_line(dmf_program(*near, "--columns", "u1", code=1))
    assert "no errors on held-out entries" in error_line(
        dmf_program("predict", "m.npz", plays, "--interval", 0.9, "-o", "p.csv", code=1)
    )
