"""Every example of the README runs, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[-1][:40])
def test_python_example(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "converged" in done.stdout or "budget spent" in done.stdout  # each example prints a status


def test_commands_are_those_of_the_program():
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
    named = set(re.findall(r"\bdmf (\w+)", blocks))
    program = Path(sys.executable).with_name("dmf")
    helped = subprocess.run([program, "-h"], capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  (\w+) ", helped.split("Commands:")[1], re.MULTILINE))
    assert named == listed


def test_pictures_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[2] / picture).is_file(), picture
