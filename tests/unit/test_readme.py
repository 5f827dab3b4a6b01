"""Every example of the README runs, and its commands exist."""

import re
from pathlib import Path

import pytest

from dmf_cli.commands import program

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[-1][:40])
def test_python_example(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_commands_are_those_of_the_program():
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
    named = set(re.findall(r"\bdmf (\w+)", blocks))
    listed = set(program.list_commands(None))
    assert named == listed


def test_pictures_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[2] / picture).is_file(), picture
