"""The one place that knows which array library is in use."""

import numpy as np
import pytest

import dmf
from dmf.arrays.backend import (
    as_array,
    device,
    floating,
    from_host,
    host_dtype,
    is_numpy,
    namespace,
    number,
    real_dtype,
    to_host,
)

from helpers import DEVICE, LIBRARIES, array_api_strict, on_device1

libraries = pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)


def test_namespace_is_that_of_the_arrays():
    assert namespace(np.ones(1), np.ones(2)) is np
    assert namespace(on_device1([1.0])) is array_api_strict


def test_arrays_of_two_libraries_are_not_mixed():
    with pytest.raises(dmf.errors.BackendError, match="Convert them to one kind first") as caught:
        namespace(np.ones(1), on_device1([1.0]))
    assert caught.value.value == ["array_api_strict._array_object.Array", "numpy.ndarray"]


def test_arrays_of_two_devices_are_not_mixed():
    with pytest.raises(dmf.errors.BackendError, match="Move them to one device first") as caught:
        namespace(on_device1([1.0]), array_api_strict.asarray([1.0]))
    assert len(caught.value.value) == 2


def test_things_that_are_no_arrays():
    with pytest.raises(dmf.errors.BackendError, match="list"):
        namespace(np.ones(1), [1.0])


@libraries
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_to_host_and_back(move, dtype):
    host = np.array([[0, 1], [1, 1]], dtype)
    moved = move(host)
    assert is_numpy(moved) == (move is LIBRARIES["numpy"])
    back = to_host(moved)
    assert type(back) is np.ndarray
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, host)
    again = from_host(back, moved)
    assert type(again) is type(moved)
    assert again.dtype == moved.dtype
    assert device(again) == device(moved)


@libraries
@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 3, 4)])
def test_host_dtype(move, shape):
    assert host_dtype(move(np.zeros(shape, np.float32))) == np.dtype(np.float32)


def test_nothing_is_copied_that_is_there_already():
    host = np.ones(3)
    assert to_host(host) is from_host(host, host) is as_array(host, "x") is host
    assert floating(host, "x") is host


def test_device_of_an_array():
    assert device(on_device1([1.0])) == DEVICE
    assert device(np.ones(1)) == "cpu"


@libraries
def test_number_of_an_array_without_dimensions(move):
    value = number(move(np.asarray(2.5, np.float32)))
    assert type(value) is float
    assert value == 2.5


@libraries
@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int64])
def test_integers_become_float64(move, dtype):
    result = floating(move(np.array([0, 1], dtype)), "x")
    assert to_host(result).dtype == np.float64
    assert to_host(result).tolist() == [0.0, 1.0]
    assert device(result) == device(move(np.ones(1)))


@libraries
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_floating_dtype_is_kept(move, dtype):
    array = move(np.ones(2, dtype))
    assert floating(array, "x") is array
    assert real_dtype(array, "x") == array.dtype


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, ">f8", "U1", "S1", object, "M8[s]", "m8[s]"])
def test_dtypes_that_dmf_does_not_compute_in(dtype):
    array = np.zeros(2, dtype)
    for check in (floating, real_dtype):
        with pytest.raises(dmf.errors.DTypeError, match=r"[cC]onvert it .*first|pass both parts") as caught:
            check(array, "x")
        assert caught.value.argument == "x"
        assert caught.value.value == str(array.dtype)
        assert caught.value.limit == ("float32", "float64")


def test_complex_arrays_of_other_libraries():
    with pytest.raises(dmf.errors.DTypeError, match="pass both parts"):
        floating(on_device1(np.zeros(2, complex)), "x")


def test_as_array_puts_bytes_in_order_and_masked_entries_to_nan():
    swapped = as_array(np.array([1.5, 2.0], ">f8"), "x")
    assert swapped.dtype == np.float64 and swapped.dtype.isnative and swapped.tolist() == [1.5, 2.0]
    masked = as_array(np.ma.masked_array([1, -999], [False, True]), "x")
    np.testing.assert_array_equal(masked, [1, np.nan])
    assert floating(np.ones(2, np.float16), "x").dtype == np.float32


def test_as_array_reads_sequences_and_refuses_ragged_ones():
    assert as_array([[1, 2]], "x").shape == (1, 2)
    with pytest.raises(dmf.errors.DTypeError, match="Pass a rectangular array") as caught:
        as_array([[1, 2], [3]], "x")
    assert (caught.value.argument, caught.value.value) == ("x", "list")
