"""Pictures of the theory are written, from one record to many, and say what does not fit."""

import array_api_strict
import numpy as np
import pytest
from matplotlib.image import imread

import dmf
from dmf.theory.pictures import plot_alignment, plot_layer_spectra, plot_learning_times, plot_singular_values


def check(path):
    """The file is a picture that is not blank."""
    picture = imread(path)
    assert min(picture.shape[:2]) > 300
    assert picture[..., :3].std() > 0.02


@pytest.mark.parametrize(("records", "count"), [(1, 1), (5000, 12)])
def test_waterfalls(tmp_path, records, count):
    iteration = np.arange(records) * 10
    values = np.linspace(0, 1, records)[:, None] * np.linspace(1, 0.1, count)
    plot_singular_values(tmp_path / "values.png", "values", iteration, values)
    plot_alignment(tmp_path / "alignment.png", "alignment", iteration, values, values)
    check(tmp_path / "values.png")
    check(tmp_path / "alignment.png")


def test_spectra_that_are_zero_and_strict_arrays(tmp_path):
    plot_singular_values(tmp_path / "zero.png", "zero", array_api_strict.arange(3), array_api_strict.zeros((3, 2)))
    check(tmp_path / "zero.png")


@pytest.mark.parametrize("depth", [1, 4])
def test_layer_spectra(tmp_path, depth):
    spectra = [np.linspace(1, 0, 5 + k) for k in range(depth)]
    plot_layer_spectra(tmp_path / "layers.png", "layers", spectra, [2 * s for s in spectra])
    check(tmp_path / "layers.png")


@pytest.mark.parametrize("count", [1, 20])
def test_learning_times(tmp_path, count):
    """Infinite times and those of 0 are left out."""
    values = np.linspace(0.1, 1, count)
    times = 10 / values
    times[0] = np.inf
    plot_learning_times(
        tmp_path / "times.png", "times", values, [("one", 10 / values, times), ("two", 5 / values, 5 / values)]
    )
    check(tmp_path / "times.png")


def test_shapes_are_checked(tmp_path):
    path = tmp_path / "never.png"
    with pytest.raises(dmf.errors.ShapeError, match=r"\(3,\) and the values \(4, 2\)"):
        plot_singular_values(path, "", np.arange(3), np.ones((4, 2)))
    with pytest.raises(dmf.errors.ShapeError, match="each layer has one vector"):
        plot_layer_spectra(path, "", [np.ones(3)], [np.ones(4)])
    with pytest.raises(dmf.errors.ShapeError, match="there are 2 singular values"):
        plot_learning_times(path, "", np.ones(2), [("one", np.ones(3), np.ones(2))])
    assert not path.exists()
