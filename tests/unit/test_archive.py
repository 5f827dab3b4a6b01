"""Writing files: whole or not at all. (The suite may run as root, whom permission bits do not stop.)"""

import os

import pytest

import dmf
from dmf.io.archive import write_text

from helpers import assert_same_model, example_model


def test_saving_over_a_model_replaces_it(tmp_path):
    path = tmp_path / "model.npz"
    example_model(ids=False).save(path)
    example_model().save(path)
    assert_same_model(dmf.load(path), example_model())
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def test_files_get_the_usual_permissions(tmp_path):
    """Not those of a private temporary file."""
    example_model().save(tmp_path / "model.npz")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "model.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("name", "match"),
    [(".", "it is a folder. Name a file"), ("missing/model.npz", "a folder that exists"), ("x" * 300, "too long")],
)
def test_a_place_that_cannot_be_written(name, match, tmp_path):
    with pytest.raises(dmf.FileError, match=match):
        example_model().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def _fail_midway(error):
    def savez(file, **_):
        file.write(b"half of")
        raise error

    return savez


def _fail(error):
    def replace(*_):
        raise error

    return replace


@pytest.mark.parametrize(
    ("target", "fail"), [("numpy.savez", _fail_midway), ("os.replace", _fail), ("os.fsync", _fail)]
)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(target, fail, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    example_model(ids=False).save(path)
    before = path.read_bytes()
    for error, expected in (
        (OSError(28, "No space left on device"), dmf.FileError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, fail(error))
            with pytest.raises(expected, match="No space left" if expected is dmf.FileError else None):
                example_model().save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["model.npz"]  # noqa: PTH208


def test_text_is_written_the_same_way(tmp_path):
    write_text(tmp_path / "a.txt", "ü\n")
    assert (tmp_path / "a.txt").read_bytes() == "ü\n".encode()
    with pytest.raises(dmf.FileError, match="a folder that exists"):
        write_text(tmp_path / "b" / "a.txt", "")
