"""Descent against trajectories by finite differences, made by make_own_reference.py without dmf."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import dmf

REFERENCE = Path(__file__).with_name("own_reference.npz")


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as file:
        return {name: file[name] for name in file.files}


def test_the_file_is_what_its_script_makes(reference):
    """Up to the rounding of sums in another order on another processor, as below."""
    made = runpy.run_path(str(REFERENCE.with_name("make_own_reference.py")))["reference"]()
    assert made.keys() == reference.keys()
    for name, array in made.items():
        np.testing.assert_allclose(reference[name], array, rtol=1e-12, atol=1e-12)


def observe(kind, reference):
    target = reference["target"]
    if kind == "completion":
        rows, cols = np.nonzero(reference["mask"])
        return dmf.SampledEntries(rows, cols, target[rows, cols], target.shape)
    if kind == "sensing":
        return dmf.LinearMeasurements(reference["operator"], reference["labels"])
    return dmf.FullMatrix(target)


@pytest.mark.parametrize("kind", ["full", "completion", "sensing"])
def test_descent_follows_finite_differences(kind, reference):
    """20 steps of 6 x 5, depth 3, rank 2, with outer_scale and weight decay: losses and weights to 1e-12.

    The loss is quadratic in each single weight, so the central difference has no error but rounding: about 100 eps (the
    loss near the start is of order 1, the step 1), and 20 steps of a stable descent add these up: 20 * 100 * 2e-16 = 4e-13.
    """
    layers = (1, 2, 3)
    recovery = dmf.gradient_descent(
        observe(kind, reference),
        dmf.DeepLinearNetwork([reference[f"start_{k}"] for k in layers]),
        float(reference[f"{kind}_step_size"]),
        float(reference["outer_scale"]),
        float(reference["weight_decay"]),
        iterations=20,
    )
    expected = reference[f"{kind}_loss"]
    assert expected[-1] < 0.7 * expected[0]  # something happened
    np.testing.assert_allclose(recovery.history.loss, expected, rtol=1e-12)
    for k, weight in zip(layers, recovery.network.weights, strict=True):
        np.testing.assert_allclose(weight, reference[f"{kind}_final_{k}"], rtol=0, atol=1e-12)
