"""The installed program, and readers of what it prints."""

import json
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("dmf")


def error_line(done):
    """The line that a failed command prints last on stderr."""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: "), done.stderr
    assert "Traceback" not in done.stderr
    return last


def as_json(done):
    return json.loads(done.stdout)
