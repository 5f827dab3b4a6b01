"""Devices by name, CuPy imported only when it is needed, kernels chosen by array library; with a stand-in for CuPy."""

import contextlib
import subprocess
import sys
import types

import numpy as np
import pytest
import scipy.sparse

import dmf
from dmf.arrays.backend import check_device, cupy_module, free_memory, library, move, on_device_of
from dmf.kernels import TABLE, kernel

from helpers import NUMPY_ONLY, assert_same_model, assert_same_weights, example_model, observe, on_device1

COMPLETE = "import dmf, numpy; dmf.complete(numpy.ones((3, 3)), iterations=1)"


class Device(contextlib.AbstractContextManager):
    """Notes which device is current."""

    entered: list = []  # noqa: RUF012

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        self.entered.append(self.number)

    def __exit__(self, *error):
        self.entered.pop()


class FakeArray:
    """Stands for cupy.ndarray: refuses to become a NumPy array but by `get`."""

    def __init__(self, host, number):
        self._host, self.device, self.dtype, self.shape = np.array(host), Device(number), host.dtype, host.shape

    def get(self, order="C"):
        return self._host.copy(order)

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


def fake_module(devices=2):
    module = types.ModuleType("cupy")
    module.ndarray = FakeArray
    module.asarray = lambda a: a if isinstance(a, FakeArray) else FakeArray(a, Device.entered[-1])
    runtime = types.SimpleNamespace(getDeviceCount=lambda: devices, memGetInfo=lambda: (1000, 5000))
    module.cuda = types.SimpleNamespace(Device=Device, runtime=runtime)
    module.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 23)
    return module


@pytest.fixture
def cupy(monkeypatch):
    """`cupy(module)` puts a module in the place of CuPy."""

    def put(module):
        monkeypatch.setitem(sys.modules, "cupy", module)
        cupy_module.cache_clear()

    put(fake_module())
    yield put
    cupy_module.cache_clear()


def test_kernels_are_chosen_by_the_library_of_the_arrays(cupy):
    arrays = {"numpy": np.ones(2), "cupy": FakeArray(np.ones(2), 0), "": on_device1(np.ones(2))}
    for name, array in arrays.items():
        assert library(array) == name
        for forms in TABLE:
            assert kernel(forms, array) is TABLE[forms][name if name in TABLE[forms] else "reference"]
    assert len({id(form) for form in TABLE["SampledEntries"].values()}) == 3


def test_arrays_move_to_a_device_and_back(cupy):
    """The dtype is kept, the device is that of the name, and what is there already is not copied."""
    host = np.arange(3, dtype=np.float32)
    moved = move(host, "cuda:1")
    assert (type(moved), moved.device.number, moved.dtype) == (FakeArray, 1, np.float32)
    assert move(host, "cuda").device.number == 0
    np.testing.assert_array_equal(move(moved, "cpu"), host)
    assert move(host, "cpu") is host
    assert move(moved, "cuda:1") is moved
    np.testing.assert_array_equal(move(on_device1(host), "cuda").get(), host)
    with on_device_of(moved):
        assert Device.entered == [1]
    with on_device_of(host):
        assert Device.entered == []


def test_free_memory(cupy):
    """Of a device: what it has left and what CuPy's pool holds; of the host: all, where the system tells."""
    assert free_memory(FakeArray(np.ones(1), 0)) == 1023
    host = free_memory(np.ones(1))
    assert host is None or host > 10**8


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cpu:0", "cuda:1 ", "", None, 0])
def test_names_of_no_device(name, cupy):
    with pytest.raises(dmf.errors.ArgumentError, match='it is "cpu", "cuda" or "cuda:N"') as caught:
        check_device(name)
    assert caught.value.argument == "device"
    assert caught.value.value == name


def test_numbers_that_no_device_has(cupy):
    assert check_device("cuda:1") == ("cuda", 1)
    with pytest.raises(
        dmf.errors.ArgumentError, match=r"2 CUDA devices, numbered from 0\. Pass a number below 2"
    ) as caught:
        check_device("cuda:2")
    assert caught.value.limit == 1


def test_no_device(cupy):
    cupy(fake_module(devices=0))
    with pytest.raises(dmf.errors.MissingPackageError, match=r"finds no CUDA device, .* compute on the cpu"):
        check_device("cuda")
    assert check_device("cpu") == ("cpu", 0)


@pytest.mark.parametrize("raised", [ImportError("libcudart.so.13 is missing"), RuntimeError("no driver")])
def test_a_broken_cupy_is_named_with_its_reason(raised, cupy):
    module = fake_module()

    def fail():
        raise raised

    module.cuda.runtime.getDeviceCount = fail
    cupy(module)
    with pytest.raises(
        dmf.errors.MissingPackageError, match=f"does not work here .*{raised}.*but computing on a GPU needs it"
    ):
        cupy_module()


def test_a_missing_cupy(cupy):
    cupy(None)  # an import then fails as of a module that is not there
    with pytest.raises(dmf.errors.MissingPackageError, match=r"CuPy is not installed.*dmf\[cuda13\]"):
        cupy_module()


def test_dmf_needs_no_cupy(tmp_path):
    """It is not even imported where arrays are NumPy's."""
    (tmp_path / "cupy.py").write_text("raise OSError('half installed')")
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["full", "entries", "part of linear array", "part of a part of rank one"])
def test_observations_move(kind, cupy):
    """To the CPU from another library, with all that was measured; on the CPU they are there already."""
    there = observe(kind, seed=3, move=on_device1)
    here = observe(kind, seed=3)
    assert here.to_device("cpu") is here
    moved = there.to_device("cpu")
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((6, 2)), rng.standard_normal((2, 5))
    assert isinstance(moved.values, np.ndarray)
    for one, other in zip(moved.evaluate(left, right), here.evaluate(left, right), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [*NUMPY_ONLY, "part of linear object"])
def test_operators_of_others_stay_where_they_are(kind, cupy):
    observations = observe(kind)
    assert observations.to_device("cpu") is observations
    with pytest.raises(dmf.errors.BackendError, match="Build it there") as caught:
        observations.to_device("cuda")
    assert caught.value.value == "cuda"


def test_sparse_matrices_of_cupy_are_told_by_their_module():
    """Repeated positions are summed by their own method, as they are for SciPy's; stored zeros are entries."""

    class Matrix(scipy.sparse.coo_matrix):
        __module__ = "cupyx.scipy.sparse._coo"

    matrix = Matrix(([1.0, 2.0, 0.0], ([1, 1, 0], [2, 2, 0])), shape=(2, 3))
    entries = dmf.SampledEntries.from_sparse(matrix)
    assert (entries.rows.tolist(), entries.cols.tolist(), entries.values.tolist()) == ([0, 1], [0, 2], [0.0, 3.0])
    assert matrix.nnz == 3


def test_recoveries_move():
    model = example_model(move=on_device1)
    moved = model.to_device("cpu")
    assert_same_model(moved, example_model())
    assert all(isinstance(a, np.ndarray) for a in (*moved.factors(), moved.offsets.row, moved.offsets.col))


def test_a_model_is_loaded_to_a_device(tmp_path, cupy):
    """An unknown device is refused before the file is read."""
    example_model().save(tmp_path / "model.npz")
    assert_same_weights(dmf.load(tmp_path / "model.npz", device="cpu"), example_model())
    with pytest.raises(dmf.errors.ArgumentError, match="numbered from 0"):
        dmf.load(tmp_path / "nowhere.npz", device="cuda:7")
