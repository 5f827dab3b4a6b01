"""Help, version, errors as JSON, Ctrl-C at the start."""

import os
import signal
from functools import partial

import pytest

from cli.program import as_json, error_line

COMMANDS = ["demo", "complete", "predict", "rank", "factorize", "sense", "info", "reproduce", "dynamics"]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(dmf_program, command):
    done = dmf_program(*([command] if command else []), "-h")
    assert "Usage: dmf" in done.stdout
    for option in ("--json", "--seed", "--threads", "--debug") if command else COMMANDS:
        assert option in done.stdout


def test_the_installed_program_starts(started_program):
    assert "0.1.0" in started_program("--version").stdout


def test_an_error_is_a_json_object_where_one_is_asked_for(dmf_program, tmp_path):
    """The line on stderr is there as well; wrong usage is told there alone."""
    (tmp_path / "bad.csv").write_text("a,x,1\na,y,zwölf\n")
    done = dmf_program("complete", "bad.csv", "--json", code=1)
    assert f"Error: {as_json(done)['error']}" == error_line(done)
    assert "line 2: the value (column 3) is 'zwölf'" in as_json(done)["error"]
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
        code=7 if ignored else 130,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        preexec_fn=partial(signal.signal, signal.SIGINT, handler),
    )
    assert (done.stdout, done.stderr) == ("", "" if ignored else "Error: interrupted.\n")
