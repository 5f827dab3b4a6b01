"""Distances completed: exact where points fit, better than shortest paths in noise, and trees in hyperbolic space."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

import dmf
from dmf.errors import ArgumentError, ObservationError, RankError, ShapeError

from helpers import ctrl_c_at

seeds = st.integers(0, 2**32 - 1)


def planted(rng, geometry, n, k, radius=1.0):
    """All distances between n random points."""
    x = rng.standard_normal((n, k))
    if geometry == "euclidean":
        return np.linalg.norm(x[:, None] - x, axis=2)
    height = np.sqrt(1 + np.sum(x**2, axis=1))
    cosines = height[:, None] * height - x @ x.T
    return np.where(np.eye(n) > 0, 0, radius * np.arccosh(np.maximum(cosines, 1)))


def with_holes(rng, distances, share):
    """Each pair seen once, in the upper triangle, with this probability."""
    return np.where(np.triu(rng.random(distances.shape) < share, 1), distances, np.nan)


@settings(max_examples=6)
@given(geometry=st.sampled_from(["euclidean", "hyperbolic"]), k=st.integers(1, 3), seed=seeds, radius=st.floats(0.2, 5))
def test_distances_of_points_are_found_from_some(geometry, k, seed, radius):
    rng = np.random.default_rng(seed)
    truth = planted(rng, geometry, 40, k, radius if geometry == "hyperbolic" else 1.0)
    found = dmf.complete_distances(with_holes(rng, truth, 0.6), geometry, k, radius=radius)
    np.testing.assert_allclose(
        found.product(), truth, atol=2e-7 * truth.max()
    )  # of nearby points cosines keep half the digits
    assert found.points.shape == (40, k + (geometry == "hyperbolic"))
    assert np.all(found.filled()[found.observations.rows, found.observations.cols] == found.observations.values)
    if geometry == "hyperbolic":
        square = found.points[:, 0] ** 2 - np.sum(found.points[:, 1:] ** 2, axis=1)
        np.testing.assert_allclose(square, 1, atol=1e-9 * found.points.max() ** 2)


@pytest.mark.parametrize("geometry", ["euclidean", "hyperbolic"])
def test_noise_is_fitted_better_than_by_shortest_paths(geometry, rng):
    truth = planted(rng, geometry, 60, 2)
    seen = with_holes(rng, np.maximum(truth + np.triu(0.1 * rng.standard_normal(truth.shape)), 0), 0.3)
    found = dmf.complete_distances(seen, geometry)
    hidden = np.triu(np.isnan(seen), 1)
    known = np.nan_to_num(seen)
    paths = shortest_path(scipy.sparse.csr_array(known + known.T), directed=False)

    def error(estimate):
        return np.sqrt(np.mean((estimate - truth)[hidden] ** 2))

    assert error(found.product()) < 0.1 < error(paths)
    assert 0.07 < found.residual < 0.13


def test_a_tree_is_less_distorted_in_the_hyperbolic_plane():
    children = np.arange(1, 40, dtype=np.int32)
    parents = (children - 1) // 3  # branching 3, depth 3
    tree = scipy.sparse.coo_array((np.ones(39), (parents, children)), (40, 40)).tocsr()
    truth = shortest_path(tree, directed=False)
    pairs = np.triu_indices(40, 1)

    def distortion(*arguments, **options):
        found = dmf.complete_distances(truth, *arguments, **options)
        return np.mean(np.abs(found.product()[pairs] / truth[pairs] - 1))

    assert distortion("hyperbolic", radius=0.5) < 0.7 * distortion("euclidean")


def test_a_point_caught_in_the_wrong_place_is_put_elsewhere():
    """Few distances for each point: low-rank completion alone leaves some far away, and no small step leads back."""
    rng = np.random.default_rng(1)
    truth = planted(rng, "euclidean", 300, 2)
    found = dmf.complete_distances(with_holes(rng, truth, 0.05), "euclidean")
    np.testing.assert_allclose(found.product(), truth, atol=1e-9)


def test_every_form_of_input_and_seed_gives_the_same(rng):
    truth = planted(rng, "euclidean", 20, 2)
    dense = with_holes(rng, truth, 0.9)
    rows, cols = np.nonzero(~np.isnan(dense))
    forms = [dense, dense.T, dmf.SampledEntries(cols, rows, dense[rows, cols], (20, 20))]
    forms.append(scipy.sparse.coo_array((dense[rows, cols], (rows, cols)), (20, 20)))
    for form in forms:
        np.testing.assert_allclose(dmf.complete_distances(form).product(), truth, atol=1e-9)


def test_ctrl_c_in_the_completion_ends_the_whole(rng, monkeypatch):
    """What it was interrupted at is no start to refine."""
    seen = with_holes(rng, planted(rng, "euclidean", 30, 2), 0.5)
    calls = ctrl_c_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        dmf.complete_distances(seen)
    assert len(calls) == 2


@pytest.mark.parametrize("geometry", ["euclidean", "hyperbolic"])
@pytest.mark.parametrize("unit", [2.0**-560, 2.0**540])  # 3e-169 and 4e162
def test_the_unit_of_the_distances_does_not_matter(geometry, unit, rng):
    truth = planted(rng, geometry, 30, 2)
    noisy = np.maximum(truth + np.triu(0.1 * rng.standard_normal(truth.shape)), 0)
    seen = with_holes(rng, noisy, 0.6)
    usual = dmf.complete_distances(seen, geometry)
    far = dmf.complete_distances(unit * seen, geometry, radius=unit if geometry == "hyperbolic" else 1.0)
    np.testing.assert_allclose(far.product() / unit, usual.product(), atol=1e-6)
    assert far.residual / unit == pytest.approx(usual.residual)
    assert 0.05 < usual.residual < 0.15


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_distances_of_low_weight_hardly_count(scale, rng):
    """One in ten is wrong by up to 3, and known to be: the others are fitted. Only ratios of weights matter."""
    truth = planted(rng, "euclidean", 40, 2)
    rows, cols = np.triu_indices(40, 1)
    bad = rng.random(rows.size) < 0.1
    values = truth[rows, cols] + 3 * rng.random(rows.size) * bad
    weights = scale * np.where(bad, 1e-9, 1.0)
    found = dmf.complete_distances(dmf.SampledEntries(rows, cols, values, (40, 40), weights))
    np.testing.assert_allclose(found.product(), truth, atol=1e-6)
    assert found.residual < 1e-3
    assert (
        np.abs(dmf.complete_distances(dmf.SampledEntries(rows, cols, values, (40, 40))).product() - truth).max() > 0.1
    )


def test_a_data_frame_comes_back_filled(rng):
    pandas = pytest.importorskip("pandas")
    names = [f"p{k}" for k in range(20)]
    truth = planted(rng, "euclidean", 20, 2)
    frame = pandas.DataFrame(with_holes(rng, truth, 0.9), index=names, columns=names)
    filled = dmf.complete_distances(frame).filled()
    assert isinstance(filled, pandas.DataFrame) and list(filled.index) == list(filled.columns) == names
    np.testing.assert_allclose(filled.to_numpy(), truth, atol=1e-9)


def test_points_in_one_place_are_no_obstacle():
    assert np.all(dmf.complete_distances(np.zeros((4, 4))).product() == 0)


@pytest.mark.parametrize(
    ("change", "error", "argument"),
    [
        ({"geometry": "spherical"}, ArgumentError, "geometry"),
        ({"dimension": 0}, ArgumentError, "dimension"),
        ({"dimension": 4}, RankError, "dimension"),
        ({"radius": 0}, ArgumentError, "radius"),
        ({"radius": 1e-3, "geometry": "hyperbolic"}, ArgumentError, "radius"),
        ({"data": np.ones((3, 4))}, ShapeError, "data"),
        ({"data": -np.ones((4, 4))}, ObservationError, "data"),
        ({"data": np.eye(4)}, ObservationError, "data"),
        ({"data": np.kron(np.eye(2), np.ones((2, 2))) * np.nan}, ObservationError, "values"),
    ],
)
def test_what_is_no_set_of_distances_is_refused(change, error, argument):
    arguments = {"data": np.ones((4, 4)) - np.eye(4)} | change
    with pytest.raises(error) as caught:
        dmf.complete_distances(**arguments)
    assert caught.value.argument == argument


def test_parts_without_a_distance_between_are_refused():
    data = np.full((4, 4), np.nan)
    data[0, 1] = data[2, 3] = 1.0
    with pytest.raises(ObservationError, match="2 parts"):
        dmf.complete_distances(data)
