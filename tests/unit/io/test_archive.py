"""Writing files: whole or not at all. (The suite may run as root, whom permission bits do not stop.)"""

import os
import socket
import stat

import pytest

import dmf
from dmf.io.writing import check_writable, write_atomically, write_text

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
    with pytest.raises(dmf.errors.FileError, match=match):
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
        (OSError(28, "No space left on device"), dmf.errors.FileError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, fail(error))
            with pytest.raises(expected, match="No space left" if expected is dmf.errors.FileError else None):
                example_model().save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["model.npz"]  # noqa: PTH208


def test_text_is_written_the_same_way(tmp_path):
    write_text(tmp_path / "a.txt", "ü\n")
    assert (tmp_path / "a.txt").read_bytes() == "ü\n".encode()
    with pytest.raises(dmf.errors.FileError, match="a folder that exists"):
        write_text(tmp_path / "b" / "a.txt", "")


def _device(path):
    """A copy of /dev/full: the device itself is never put at risk."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("devices are made by root alone")


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # names of sockets are short


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps pipes and devices out of its folders")
@pytest.mark.parametrize(("make", "kind"), [("mkfifo", "a pipe"), (_socket, "a socket"), (_device, "a device")])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_never_replaced(make, kind, linked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = name = tmp_path / "special"
    getattr(os, make)(path) if isinstance(make, str) else make(path)
    if linked:
        name = tmp_path / "link"
        name.symlink_to("special")
    before = path.lstat()
    for write in (check_writable, lambda path: write_text(path, "a")):
        with pytest.raises(dmf.errors.FileError, match=f"{name.name}: it is {kind}, .* Name a regular file"):
            write(name)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert {p.name for p in tmp_path.iterdir()} == {"special", name.name}


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("exists", [True, False])
def test_links_stay_and_their_targets_are_replaced(exists, tmp_path):
    """The temporary file is made beside the target: the link may lead to another file system."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    target, link, chain = tmp_path / "a" / "target", tmp_path / "b" / "link", tmp_path / "chain"
    link.symlink_to("../a/target")
    chain.symlink_to(link)
    if exists:
        target.write_text("old")
    check_writable(chain)
    assert target.exists() == exists
    with pytest.MonkeyPatch.context() as patch, pytest.raises(dmf.errors.FileError):
        patch.setattr("os.replace", _fail(OSError(28, "No space left on device")))
        write_text(chain, "half")
    write_text(chain, "new")
    assert target.read_text() == "new" and link.is_symlink() and chain.is_symlink()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["target"]
    link.unlink()
    link.symlink_to("../chain")
    with pytest.raises(dmf.errors.FileError, match="symbolic links"):
        check_writable(chain)


@pytest.mark.parametrize(
    ("name", "match"), [("missing/../ok.npz", "a folder that exists"), ("a\0b", "null"), ("", "folder")]
)
def test_paths_that_lead_nowhere_are_found_out_before_the_work(name, match, tmp_path, monkeypatch):
    """A missing folder is missing even if the path leaves it again."""
    monkeypatch.chdir(tmp_path)
    for write in (check_writable, lambda path: write_text(path, "a")):
        with pytest.raises(dmf.errors.FileError, match=match):
            write(name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_hands_its_permissions_on(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)


def test_names_as_long_as_the_file_system_takes_them(tmp_path):
    name = "x" * 255
    write_text(tmp_path / name, "a")
    check_writable(tmp_path / name)
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
def test_what_a_killed_run_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    with pytest.raises(SystemExit):
        write_atomically(tmp_path / "a.txt", lambda file: exit_after_a_copy(tmp_path))
    assert os.listdir(tmp_path) == [".dmf-left.tmp"]  # noqa: PTH208

    def write_another(file):
        (mine,) = tmp_path.glob(".dmf-*.tmp")  # that of the killed run is gone
        write_text(tmp_path / "b.txt", "b")
        assert mine.exists()
        file.write(b"a")

    write_atomically(tmp_path / "a.txt", write_another)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def exit_after_a_copy(folder):
    """Leave a temporary file, as a run does that is killed."""
    (own,) = folder.glob(".dmf-*.tmp")
    (folder / ".dmf-left.tmp").write_bytes(own.read_bytes())
    raise SystemExit
