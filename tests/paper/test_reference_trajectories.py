"""Trajectories against those of an independent implementation by automatic differentiation (float64)."""

import numpy as np
import pytest

import dmf
from dmf.arrays.backend import to_host

from helpers import LIBRARIES, WITH_KERNELS

CASES = [
    "completion_compressed_depth3_alpha5",
    "completion_original_depth3",
    "factorization_compressed_depth3",
    "factorization_original_depth3",
    "sensing_compressed_depth3",
]


def observe(run, move):
    if run["kind"] == "completion":
        rows, cols = np.nonzero(run["mask"])
        return dmf.SampledEntries(move(rows), move(cols), move(run["target"][rows, cols]), run["target"].shape)
    if run["kind"] == "factorization":
        return dmf.FullMatrix(move(run["target"]))
    return dmf.LinearMeasurements(move(run["sensing_matrices"]), move(run["labels"]))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("library", WITH_KERNELS)
def test_descent_follows_the_reference(name, library, reference_folder):
    """Every recorded loss agrees to 1e-8 relative, every final weight matrix to 1e-8 in the relative Frobenius norm."""
    with np.load(reference_folder / f"{name}.npz") as file:
        run = {key: file[key] for key in file.files}
    move, layers = LIBRARIES[library], range(1, int(run["depth"]) + 1)
    every = int(run["iterations_per_record"])
    recovery = dmf.gradient_descent(
        observe(run, move),
        dmf.DeepLinearNetwork([move(run[f"init_{k}"]) for k in layers]),
        float(run["step_size"]),
        outer_scale=float(run["alpha"]),
        reduction="sum" if run["kind"] == "sensing" else "mean",
        iterations=(len(run["train_loss"]) - 1) * every,
        record_every=every,
    )
    np.testing.assert_array_equal(recovery.history.iteration, np.arange(len(run["train_loss"])) * every)
    np.testing.assert_allclose(recovery.history.loss, run["train_loss"], rtol=1e-8)
    for k, weight in zip(layers, recovery.network.weights, strict=True):
        expected = run[f"final_{k}"]
        assert np.linalg.norm(to_host(weight) - expected) <= 1e-8 * np.linalg.norm(expected)
