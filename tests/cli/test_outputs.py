"""Where results go: what is refused before any work, what is never replaced, what a full disk leads to."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dmf
from dmf_cli import solve
from dmf_cli.commands import program

from cli.program import PROGRAM, error_line

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows keeps pipes and devices out of its folders")


@pytest.mark.parametrize(
    "arguments",
    [
        ["complete", "data.csv", "-o", "special"],
        ["complete", "data.csv", "-o", "special.csv", "--format", "table"],
        ["complete", "data.csv", "--report", "special.html"],
        ["factorize", "data.csv", "-o", "special.npz"],
        ["predict", "m.npz", "--top", "1", "-o", "special"],
        ["rank", "data.csv", "--plot", "special.png"],
        ["demo", "-o", "special.png"],
        ["dynamics", "--problem", "sensing"],
        ["reproduce", "depth", "--small"],
    ],
)
def test_a_pipe_is_refused_by_every_command_before_it_works(dmf_program, tmp_path, arguments):
    """And stays a pipe; nothing else is written."""
    (tmp_path / "data.csv").write_text("1,2,3\n2,4.5,\n3,6,9\n" if "table" in arguments else "a,x,1\na,y,2\n")
    dmf.factorize(np.eye(3)).save(tmp_path / "m.npz")
    names = [
        "special",
        "special.csv",
        "special.html",
        "special.npz",
        "special.png",
        "dynamics-sensing-times.png",
        "depth.png",
    ]
    for name in names:
        os.mkfifo(tmp_path / name)
    line = error_line(dmf_program(*arguments, code=1))
    assert "FileError: cannot write" in line and "it is a pipe" in line
    assert all((tmp_path / name).is_fifo() for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"data.csv", "m.npz", *names}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (".", "cannot write .: it is a folder"),
        ("", "cannot write .: it is a folder"),
        ("..", "cannot write ..: it is a folder"),
        ("/", "cannot write /: it is a folder"),
        (
            "missing/../ok.npz",
            "cannot write missing/../ok.npz: No such file or directory. Name a file in a folder that exists",
        ),
    ],
)
def test_paths_that_are_no_files(monkeypatch, tmp_path, output, words):
    """They are found out before the fit."""
    (tmp_path / "data.csv").write_text("a,x,1\na,y,2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dmf, "complete", None)
    done = CliRunner().invoke(solve.complete, ["data.csv", "-o", output])
    assert done.exit_code == 1 and words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.fixture
def full_disk(tmp_path):
    """A device on which nothing can be written: a copy of /dev/full, as root could replace the original."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        path.open("w").close()
    except PermissionError:
        path = Path("/dev/full")  # which only root could replace
        if not path.exists():
            pytest.skip("this system has no device that is always full")
    with path.open("w") as file:
        yield file


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "m.npz", "--top", "60", "-o", "-"],
        ["info", "--help"],
    ],
)
def test_a_full_disk_on_stdout_is_one_line(tmp_path, full_disk, arguments):
    dmf.factorize(np.eye(60)).save(tmp_path / "m.npz")
    pipes = {"stdout": full_disk, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run([PROGRAM, *arguments], cwd=tmp_path, timeout=300, check=False, **pipes)
    assert done.returncode == 1
    last = error_line(done)
    assert "cannot write to stdout: No space left on device" in last
    notes = ["all columns are ranked"] * ("--top" in arguments)
    assert all(map(str.startswith, done.stderr.splitlines(), [*notes, "Error"]))
    assert len(done.stderr.splitlines()) == len(notes) + 1


def test_a_full_disk_on_stderr_ends_the_program_quietly(tmp_path, full_disk):
    pipes = {"stderr": full_disk, "stdout": subprocess.PIPE, "text": True}
    done = subprocess.run([PROGRAM, "info", __file__], cwd=tmp_path, timeout=300, check=False, **pipes)
    assert (done.returncode, done.stdout) == (1, "")


def test_ids_and_messages_reach_a_terminal_without_its_commands(dmf_program, tmp_path):
    """Ids, names of files and of columns, statuses: an escape sequence in any of them is shown, not obeyed."""
    (tmp_path / "a\x1b[31m.csv").write_text("u,i,\x9b31mr\na\x1b]0;x,b,1\n\u202ec,d,2\nc,b,1.5\n")
    done = dmf_program("complete", "a\x1b[31m.csv", "-o", "m.npz")
    assert all(character.isprintable() or character == "\n" for character in done.stdout + done.stderr)
    assert "a\\x1b[31m.csv" in json.loads((tmp_path / "m.json").read_text())["file"].encode("unicode_escape").decode()
    (tmp_path / "p.csv").write_text("a\x1b]0;x,b\n")
    assert "a\x1b]0;x,b," in dmf_program("predict", "m.npz", "p.csv", "-o", "-").stdout  # to a file or a pipe as it is


def test_a_closed_stderr_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", None)
    np.save("m.npy", np.outer(np.arange(1.0, 4), np.arange(1.0, 5)))
    program.main(["factorize", "m.npy", "-o", "m.npz"], standalone_mode=False)
    assert dmf.load("m.npz").shape == (3, 4)
