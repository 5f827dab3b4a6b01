"""Tests that take long: marked `slow`, so that the plain command leaves them out; those marked `campaign` run only by name."""

from pathlib import Path

import pytest

from cli.conftest import dmf_program, ratings, started_program  # noqa: F401

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("campaign") is None:
            item.add_marker(pytest.mark.slow)
