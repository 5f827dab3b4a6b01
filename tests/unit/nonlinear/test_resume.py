"""Training that was killed goes on to the same bits."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.nonlinear import SGD, Adam, train
from dmf.solvers import Checkpoint

from helpers import LIBRARIES, examples, seeds
from nonlinear_cases import networks, perceptron, samples
from solver_cases import KilledError, assert_same_run

OPTIMIZERS = [SGD(0.1), SGD(0.05, 0.9), Adam(0.02)]


def killed_at(iteration):
    def callback(snapshot):
        if snapshot.iteration == iteration:
            raise KilledError

    return callback


@pytest.mark.parametrize("library", LIBRARIES)
@examples(3)
@given(
    network=networks(),
    seed=seeds,
    optimizer=st.sampled_from(OPTIMIZERS),
    size=st.integers(1, 13),
    decay=st.sampled_from([0.0, 0.9]),
    cuts=st.lists(st.integers(0, 8), max_size=2),
)
def test_killed_training_goes_on_to_the_same_bits(
    library, network, seed, optimizer, size, decay, cuts, tmp_path_factory
):
    move = LIBRARIES[library]
    network = network.with_parameters([move(array) for array in network.parameters])
    problem = network, samples(seed, move=move), optimizer
    options = {"batch_size": size, "ema_decay": decay, "iterations": 8, "seed": 3}
    whole = train(*problem, **options)
    path = tmp_path_factory.mktemp("cut") / "run.npz"
    for cut in cuts:
        kept = Checkpoint(path, resume=True, seconds=0)
        with contextlib.suppress(KilledError):
            train(*problem, **options, callback=killed_at(cut), checkpoint=kept)
    again = train(*problem, **options, checkpoint=path, resume=True)
    assert_same_run(whole, again)
    for one, other in zip(whole.network.parameters, again.network.parameters, strict=True):
        np.testing.assert_array_equal(to_host(one), to_host(other))


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"optimizer": SGD(0.2)}, "optimizer"), ({"batch_size": 3}, "batch_size"), ({"samples": samples(1)}, "data")],
)
def test_other_samples_and_options_are_refused(tmp_path, changed, named):
    options = {"network": perceptron((6, 4, 3)), "samples": samples(0), "optimizer": SGD(0.1), "iterations": 2}
    train(**options, checkpoint=tmp_path / "run.npz")
    with pytest.raises(dmf.errors.ArgumentError, match=named) as caught:
        train(**options | changed, checkpoint=tmp_path / "run.npz", resume=True)
    assert list(caught.value.value) == [named]
