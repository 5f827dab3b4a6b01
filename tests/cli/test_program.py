"""Help, version, and the paper's experiments as commands."""

import json
import os
import signal
from functools import partial

import pytest

from cli.program import as_json, error_line

COMMANDS = ["demo", "complete", "predict", "rank", "factorize", "sense", "info", "reproduce", "dynamics"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(dmf_program, command):
    done = dmf_program(*([command] if command else []), "-h")
    assert "Usage: dmf" in done.stdout
    for option in ("--json", "--seed", "--threads", "--debug") if command else COMMANDS:
        assert option in done.stdout


def test_the_installed_program_starts(started_program):
    assert "0.1.0" in started_program("--version").stdout


def test_demo(dmf_program, tmp_path):
    """The compressed network needs fewer iterations and parameters, and ends at no larger an error."""
    report = as_json(dmf_program("demo", "--json", "-o", "picture.png"))
    original, compressed = report["table"]
    assert original["status"] == compressed["status"] == "converged"
    assert compressed["iterations"] < original["iterations"] / 2
    assert compressed["parameters"] == 2100 and original["parameters"] == 30_000
    assert compressed["error"] < 2e-5 and original["error"] < 2e-5
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("experiment", ["factorization", "completion", "sensing", "depth", "alpha"])
def test_reproduce_small(dmf_program, tmp_path, experiment):
    done = dmf_program("reproduce", experiment, "--small", "-o", tmp_path)
    assert "iterations" in done.stdout
    assert (tmp_path / f"{experiment}.png").read_bytes().startswith(PNG)
    numbers = json.loads((tmp_path / f"{experiment}.json").read_text())
    table = {row["network"]: row for row in numbers["table"]}
    assert all(row["status"] in ("converged", "budget spent") for row in table.values())
    assert all(len(curve["error"]) == len(curve["iteration"]) > 2 for curve in numbers["curves"])
    if experiment == "factorization":
        assert table["compressed"]["status"] == "converged"
        assert (
            table["original"]["error"] < 1e-6
        )  # all components; what is left is the start, in directions it never learns
        assert "exact compression" in done.stdout
    if "original" in table:  # the paper's claim
        assert table["compressed"]["error"] <= table["original"]["error"] * 1.01
        assert table["compressed"]["parameters"] < table["original"]["parameters"] / 2


def test_reproduce_makes_its_folder_or_says_why_not_before_it_works(dmf_program, tmp_path):
    dmf_program("reproduce", "depth", "--small", "-o", tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "depth.json").is_file()
    (tmp_path / "file").write_text("")
    done = dmf_program("reproduce", "depth", "--small", "-o", tmp_path / "file" / "folder", code=1)
    assert "Error: FileError: cannot make the folder" in done.stderr


def test_data_is_for_movielens_only(dmf_program, ratings):
    assert "--data is only for" in dmf_program("reproduce", "depth", "--data", ratings, code=2).stderr


def test_an_error_is_a_json_object_where_one_is_asked_for(dmf_program, tmp_path):
    """The line on stderr is there as well; wrong usage is told there alone."""
    (tmp_path / "bad.csv").write_text("a,x,1\na,y,zwölf\n")
    done = dmf_program("complete", "bad.csv", "--json", code=1)
    assert f"Error: {as_json(done)['error']}" == error_line(done)
    assert "line 2: the value (third field) is 'zwölf'" in as_json(done)["error"]
    assert dmf_program("complete", "bad.csv", code=1).stdout == ""
    assert dmf_program("complete", "bad.csv", "--json", "--rank", 0, code=2).stdout == ""
    done = dmf_program("predict", "bad.csv", "--top", 1, "-o", "-", "--json", code=2)
    assert "Give one of them" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently on Windows")
@pytest.mark.parametrize(("imported", "ignored"), [("click", False), ("click", True)])
def test_ctrl_c_during_the_imports_is_one_line(started_program, tmp_path, imported, ignored):
    """Pressed as a package is first imported; ignored where the caller ignores it, as a shell does for jobs in its background."""
    press = "import signal\nsignal.raise_signal(signal.SIGINT)\nraise SystemExit(7)\n"
    (tmp_path / f"{imported}.py").write_text(press)
    handler = signal.SIG_IGN if ignored else signal.SIG_DFL
    done = started_program(
        "--help",
        code=7 if ignored else 1,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        preexec_fn=partial(signal.signal, signal.SIGINT, handler),
    )
    assert (done.stdout, done.stderr) == ("", "" if ignored else "Error: interrupted.\n")
