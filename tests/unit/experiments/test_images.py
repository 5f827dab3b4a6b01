"""IDX files, honest and hostile; where the images come from."""

import functools
import gzip
import hashlib
import http.server
import struct
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.experiments import images
from dmf.experiments.adaptation import adaptation
from dmf.experiments.fashion import SMALL, starts
from dmf.io.idx import read_idx
from dmf.nonlinear import Samples

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    """An IDX file of bytes, written by the format's definition."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_set(folder, packed, counts=(6, 6, 4, 4), seed=0, size=(3, 2)):
    """Four files in `folder`: what they hold."""
    rng = np.random.default_rng(seed)
    content = {}
    for name, count in zip(NAMES, counts, strict=True):
        shape = (count, *size) if "images" in name else (count,)
        content[name] = rng.integers(0, 256 if "images" in name else 10, shape, np.uint8)
        data = idx(content[name])
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return content


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3), packed=st.booleans(), seed=st.integers(0, 9))
def test_reading_gives_what_was_written(folder, sizes, packed, seed):
    array = np.random.default_rng(seed).integers(0, 256, sizes, np.uint8)
    path = folder / "array"
    path.write_bytes(gzip.compress(idx(array), mtime=0) if packed else idx(array))
    np.testing.assert_array_equal(read_idx(path, len(sizes)), array)


@given(cut=st.integers(0, 39), packed=st.booleans())
def test_cut_files_are_refused(folder, cut, packed):
    """Cut anywhere: 16 bytes of header and 24 of content."""
    whole = idx(np.ones((2, 3, 4), np.uint8))
    path = folder / "cut"
    path.write_bytes(gzip.compress(whole[:cut], mtime=0) if packed else whole[:cut])
    with pytest.raises(dmf.errors.FileError, match="cannot read"):
        read_idx(path, 3)


@given(data=st.binary(max_size=60), packed=st.booleans())
def test_random_bytes_are_refused_or_read(folder, data, packed):
    """Nothing but a FileError, whatever the file holds."""
    path = folder / "random"
    path.write_bytes(b"\x1f\x8b" + data if packed else b"\0\0\x08\x01" + data)
    try:
        array = read_idx(path, 1)
    except dmf.errors.FileError as error:
        assert str(path) in str(error)
    else:
        assert idx(array) == path.read_bytes()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "(none)"),
        (struct.pack(">HBBI", 0, 8, 1, 7), "starts with the bytes 00 00 08 01"),
        (struct.pack(">HBB3I", 0, 13, 3, 1, 1, 1), "starts with the bytes 00 00 0d 03"),
        (struct.pack(">HBB2I", 0, 8, 3, 1, 1), "ends within its header"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "can be read. Fetch it anew"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 28, 28), "can be read"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**20, 28, 28) + b"abc", "822,083,584 bytes, but holds 3"),
        (gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**20, 28, 28), mtime=0), "822,083,584 bytes, but holds 0"),
        (idx(np.ones((1, 2, 2), np.uint8)) + b"x", "holds more"),
        (
            gzip.compress(idx(np.ones((1, 2, 2), np.uint8)) + bytes(10**7), mtime=0),
            "holds more",
        ),  # reading ends where it is sure
        (gzip.compress(idx(np.ones((9, 9, 9), np.uint8)), mtime=0)[:-9], "cannot read"),
        (gzip.compress(idx(np.ones((9, 9, 9), np.uint8)), mtime=0)[:-8] + bytes(8), "cannot read"),  # a wrong checksum
    ],
)
def test_hostile_files_are_refused(write, content, words):
    with pytest.raises(dmf.errors.FileError) as caught:
        read_idx(write("images", content), 3)
    assert words in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_with_the_four_files(tmp_path, packed):
    content = write_set(tmp_path, packed)
    train, test = images.fashion_mnist(tmp_path)
    for samples, (pictures, labels) in ((train, NAMES[:2]), (test, NAMES[2:])):
        assert samples.inputs.dtype == np.float32
        np.testing.assert_array_equal(samples.inputs, content[pictures].reshape(-1, 6) / np.float32(255))
        np.testing.assert_array_equal(samples.targets, content[labels])


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(dmf.errors.FileError, match=r"cannot find train-images-idx3-ubyte or .*four IDX files"):
        images.fashion_mnist(tmp_path)
    write_set(tmp_path, False, counts=(6, 5, 4, 4))
    with pytest.raises(dmf.errors.FileError, match="6 images but 5 labels"):
        images.fashion_mnist(tmp_path)
    write_set(tmp_path, False)
    (tmp_path / NAMES[2]).write_bytes(idx(np.zeros((4, 3, 3), np.uint8)))
    with pytest.raises(dmf.errors.FileError, match="'train' have 6 pixels, those of 't10k' 9"):
        images.fashion_mnist(tmp_path)
    (tmp_path / NAMES[0]).unlink()
    (tmp_path / NAMES[0]).mkdir()
    with pytest.raises(dmf.errors.FileError, match="cannot find"):
        images.fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    "size, error, words",
    [
        (
            (4, 9),
            dmf.errors.FileError,
            "images of 'train' have 4 x 9 pixels, but square ones",
        ),  # as many pixels as 6 x 6
        ((3, 2), dmf.errors.FileError, "3 x 2 pixels"),
        ((3, 3), dmf.errors.ObservationError, "the images have 9 pixels, but adapters of rank 32"),
        ((6, 6), dmf.errors.ObservationError, "there are 6 training images"),
    ],
)
def test_images_that_cannot_be_adapted_to(tmp_path, size, error, words):
    write_set(tmp_path, False, size=size)
    with pytest.raises(error) as caught:
        adaptation(small=True, data=tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize("classes", [3, 12])
def test_as_many_outputs_as_classes(classes):
    few, all_of_them = (Samples(np.eye(n), np.arange(n)) for n in (2, classes))
    assert images.class_count(few, all_of_them) == images.class_count(all_of_them, few) == classes
    assert {network.sizes for network in starts(SMALL, all_of_them, classes, 0).values()} == {(classes, classes)}


def test_the_published_protocol():
    """No biases, the full batch, orthogonal factors of both blocks, another rate of the first layer beside the compressed one."""
    settings = SMALL.as_published()
    assert settings.batch_size is None and settings.ema_decay == 0
    networks = starts(settings, Samples(np.eye(6), np.arange(6)), 6, 0)
    assert all(parameter.ndim == 2 for network in networks.values() for parameter in network.parameters)
    assert [network.rates[0] for network in networks.values()] == [1, 1, settings.first_rate]
    assert all(rate == 1 for network in networks.values() for rate in network.rates[1:])
    for network, width in zip(list(networks.values())[1:], (settings.width, settings.rank), strict=True):
        for factor in network.layers[2].weights:
            small = factor if factor.shape[0] <= factor.shape[1] else factor.T
            np.testing.assert_allclose(small @ small.T, settings.scale**2 * np.eye(len(small)), atol=1e-12)
        assert network.layers[2].weights[1].shape == (width, width)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine in place of the authors', with files of its own and their checksums; an empty cache."""
    source = tmp_path / "source"
    source.mkdir()
    content = write_set(source, True)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    sums = {f"{name}.gz": "md5:" + hashlib.md5((source / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setenv("DMF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr(images, "_CHECKSUMS", sums)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=source)) as running:
        monkeypatch.setattr(images, "_SOURCE", f"http://127.0.0.1:{running.server_address[1]}/")
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield content, asked, sums
        running.shutdown()


def test_files_are_fetched_once(server):
    content, asked, _ = server
    for _ in range(2):
        train, test = images.fashion_mnist()
        np.testing.assert_array_equal(train.targets, content[NAMES[1]])
        np.testing.assert_array_equal(test.targets, content[NAMES[3]])
    assert len(asked) == 4


def test_a_fetched_file_with_a_wrong_checksum_is_refused(server, tmp_path, monkeypatch):
    _, _, sums = server
    monkeypatch.setattr(images, "_CHECKSUMS", sums | {f"{NAMES[2]}.gz": "md5:" + 32 * "0"})
    with pytest.raises(dmf.errors.FileError, match=r"cannot fetch FashionMNIST.*hash.*dataset-fashion-mnist"):
        images.fashion_mnist()
    assert not (tmp_path / "cache" / "fashion-mnist" / f"{NAMES[2]}.gz").exists()


def test_no_network(server, monkeypatch):
    monkeypatch.setattr(images, "_SOURCE", "http://127.0.0.1:9/")
    with pytest.raises(dmf.errors.FileError, match="cannot fetch FashionMNIST from http"):
        images.fashion_mnist()


def test_packages_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(dmf.errors.MissingPackageError, match=r"dmf\[data\]"):
        images.fashion_mnist()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(dmf.errors.MissingPackageError, match=r"dmf\[sklearn\]"):
        images.digits()


def test_the_published_set_if_it_is_installed():
    if not images.DEBIAN_FOLDER.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    train, test = images.fashion_mnist()
    for samples, count in ((train, 60_000), (test, 10_000)):
        assert samples.inputs.shape == (count, 784)
        assert samples.inputs.max() == 1
        np.testing.assert_array_equal(np.bincount(samples.targets), np.full(10, count // 10))
