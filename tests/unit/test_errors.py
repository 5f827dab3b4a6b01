"""Errors: one family, fields for programs, sentences for people."""

import inspect
import pickle

import numpy as np
import pytest

import dmf
from dmf import errors

FAMILY = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


@pytest.mark.parametrize("cls", FAMILY)
def test_every_error_is_a_dmf_error(cls):
    """So ``except dmf.errors.DmfError`` catches whatever dmf raises on purpose."""
    assert issubclass(cls, dmf.errors.DmfError)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (dmf.errors.ArgumentError, ValueError),
        (dmf.errors.MissingPackageError, ImportError),
        (dmf.errors.DmfError, Exception),
    ],
)
def test_errors_are_kinds_of_builtin_ones(cls, builtin):
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("cls", [cls for cls in FAMILY if issubclass(cls, dmf.errors.ArgumentError)])
def test_argument_errors_carry_what_was_wrong(cls):
    error = cls("rank=9, but 3 is the most. Pass 3.", argument="rank", value=9, limit=(1, 3))
    assert str(error) == "rank=9, but 3 is the most. Pass 3."
    assert (error.argument, error.value, error.limit) == ("rank", 9, (1, 3))
    bare = cls("message")
    assert (bare.argument, bare.value, bare.limit) == ("", None, None)


@pytest.mark.parametrize("cls", FAMILY)
def test_errors_cross_the_border_of_a_process(cls):
    """Pickled with message and fields, as process pools and Dask need."""
    error = (
        cls("message", argument="x", value=1, limit=2) if issubclass(cls, dmf.errors.ArgumentError) else cls("message")
    )
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is cls
    assert str(other) == "message"
    assert vars(other) == vars(error)


TABLE = np.outer(np.arange(1.0, 9), np.arange(1.0, 7))


def entries():
    return dmf.SampledEntries.from_dense(TABLE)


def network():
    return dmf.spectral_network(entries(), 1)


def judged():
    """A recovery with errors on held-out entries."""
    return dmf.calibrate(dmf.factorize(TABLE, 1), entries())


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: dmf.prediction_interval(judged(), [0], [0], "a"), "coverage"),
        (lambda: dmf.prediction_interval(judged(), [0], [0], None), "coverage"),
        (lambda: dmf.prediction_interval(judged(), [0], [0], float("nan")), "coverage"),
        (lambda: dmf.calibrate(judged(), TABLE), "held"),
        (lambda: judged().filled(TABLE), "observations"),
        (lambda: judged().predict_named(["0", "1"], ["0"]), "row_ids, col_ids"),
        (lambda: judged().save(None), "path"),
        (lambda: dmf.load(None), "path"),
        (lambda: dmf.solvers.refine(entries(), None), "network"),
        (lambda: dmf.solvers.refine(TABLE, network()), "observations"),
        (lambda: dmf.gradient_descent(TABLE, network(), 0.1, iterations=1), "observations"),
        (lambda: dmf.solvers.follow_gradient_flow(entries(), TABLE), "network"),
        (lambda: dmf.theory.exact_compression(TABLE, 3), "network"),
        (lambda: dmf.theory.learning_times("ab", 3, 0.1), "singular_values"),
        (lambda: dmf.theory.learning_times([[1], [1, 2]], 3, 0.1), "singular_values"),
    ],
)
def test_what_an_argument_cannot_be_is_said_under_its_name(call, argument):
    """No error of Python from inside."""
    with pytest.raises(dmf.errors.ArgumentError) as caught:
        call()
    assert caught.value.argument == argument
    assert argument.split(",")[0] in str(caught.value)
