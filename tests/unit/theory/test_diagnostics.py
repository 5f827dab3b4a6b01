"""Diagnostics against plain NumPy, cheap for compressed networks, as callbacks of a run."""

from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.theory import Diagnostics, combined, effective_rank, principal_angles, product_svd

seeds = st.integers(0, 2**32 - 1)


@given(d1=st.integers(1, 12), d2=st.integers(1, 12), width=st.integers(1, 14), seed=seeds, data=st.data())
def test_the_svd_of_a_product(d1, d2, width, seed, data):
    """Triplets of narrow and wide products are those of the dense matrix."""
    rank = data.draw(st.integers(1, min(d1, d2)))
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((d1, width)), rng.standard_normal((width, d2))
    u, s, vt = product_svd(left, right, rank)
    assert len(s) == min(rank, width)
    np.testing.assert_allclose(s, np.linalg.svd(left @ right, compute_uv=False)[: len(s)], rtol=1e-8, atol=1e-10)
    assert np.abs(u.T @ u - np.eye(len(s))).max() < 1e-12
    assert np.abs(vt @ vt.T - np.eye(len(s))).max() < 1e-12
    if len(s) == min(d1, d2, width):
        np.testing.assert_allclose((u * s) @ vt, left @ right, atol=1e-11)


@given(size=st.integers(2, 8), exponent=st.floats(-12, 0), seed=seeds)
def test_small_and_large_angles_are_both_accurate(size, exponent, seed):
    """Angles theta and pi/2 - theta between planes are found to 1e-14, however small theta."""
    angle = 0.5 * 10**exponent
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((size + 2, size + 2)))[0]
    tilt = [np.cos(angle) * q[:, 0] + np.sin(angle) * q[:, 2], np.sin(angle) * q[:, 1] + np.cos(angle) * q[:, 3]]
    found = principal_angles(q[:, :2], np.stack(tilt, axis=1))
    np.testing.assert_allclose(found, [angle, np.pi / 2 - angle], rtol=0, atol=1e-14)


def test_angles_of_subspaces_of_different_dimension():
    eye = np.eye(5)
    np.testing.assert_allclose(principal_angles(eye[:, :1], eye[:, :3]), [0], atol=1e-15)
    np.testing.assert_allclose(principal_angles(eye[:, :3], eye[:, 3:]), np.full(2, np.pi / 2))
    with pytest.raises(dmf.errors.ShapeError, match=r"\(5, 1\) and \(4, 1\)"):
        principal_angles(eye[:, :1], eye[:4, :1])


def test_effective_rank():
    assert effective_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert effective_rank(np.array([5.0])) == pytest.approx(1)
    assert effective_rank(np.zeros(3)) == 0
    assert 1 < effective_rank(np.array([1.0, 0.01])) < 1.1


@pytest.mark.parametrize("form", ["triplets", "factors"])
@pytest.mark.parametrize("width", [3, 20])
def test_diagnostics_are_those_of_the_dense_matrix(rng, form, width):
    """Error, spectrum, alignment and angles without a d1 x d2 matrix (width 3) equal those computed with it."""
    network = dmf.orthogonal_network((12, 10), depth=3, scale=0.8, width=width, distribution="normal", seed=2)
    left, right = rng.standard_normal((12, 2)), rng.standard_normal((2, 10))
    target, dense = left @ right, network.product()
    u, s, vt = np.linalg.svd(target)
    target_parts = (u[:, :2], s[:2], vt[:2]) if form == "triplets" else (left, right)
    found = Diagnostics(4, target_parts, layers=True, vectors=True).measure(network)
    wu, ws, wvt = np.linalg.svd(dense)
    kept = min(4, width)
    np.testing.assert_allclose(found["singular_values"][:kept], ws[:kept], rtol=1e-10)
    assert found["singular_values"].shape == (4,)
    assert found["error"] == pytest.approx(np.linalg.norm(dense - target) / np.linalg.norm(target), rel=1e-12)
    np.testing.assert_allclose(found["left_alignment"], np.linalg.norm(wu[:, :2].T @ u[:, :2], axis=0), rtol=1e-8)
    np.testing.assert_allclose(found["right_alignment"], np.linalg.norm(wvt[:2] @ vt[:2].T, axis=0), rtol=1e-8)
    np.testing.assert_allclose(found["left_overlap"], np.abs(np.diag(wu[:, :2].T @ u[:, :2])), rtol=1e-7)
    cosines = np.linalg.svd(wvt[:2] @ vt[:2].T, compute_uv=False)
    np.testing.assert_allclose(np.cos(found["right_angles"]), cosines, rtol=1e-8)
    np.testing.assert_allclose(np.abs(np.diag(found["left_vectors"].T @ wu[:, :4]))[:kept], 1, rtol=1e-8)
    for spectrum, weight in zip(found["layer_singular_values"], network.weights, strict=True):
        np.testing.assert_allclose(spectrum[:3], np.linalg.svd(weight, compute_uv=False)[:3], rtol=1e-10)


def test_errors_keep_their_accuracy_near_zero(rng):
    """An error of 1e-12 is not lost in a difference of squares."""
    u, v = np.linalg.qr(rng.standard_normal((9, 2)))[0], np.linalg.qr(rng.standard_normal((8, 2)))[0]
    network = dmf.DeepLinearNetwork([v.T, u * [1 + 1e-12, 1.0]])
    assert Diagnostics(target=(u, np.ones(2), v.T)).measure(network)["error"] == pytest.approx(1e-12 / 2**0.5, rel=1e-3)


def test_compressed_networks_never_form_the_whole_matrix():
    """At 100,000 x 100,000 the dense matrix would take 80 GB."""
    rng = np.random.default_rng(0)
    network = dmf.DeepLinearNetwork([rng.standard_normal((3, 100_000)), rng.standard_normal((100_000, 3))])
    target = rng.standard_normal((100_000, 2)), rng.standard_normal((2, 100_000))
    assert Diagnostics(target=target, layers=True).measure(network)["error"] > 1


def test_a_run_records_them_all():
    """Columns of the history, one row for each recorded iteration; 0 beyond the width."""
    target = np.outer(np.arange(1.0, 7), np.ones(5))
    u, s, vt = np.linalg.svd(target, full_matrices=False)
    network = dmf.orthogonal_network((6, 5), scale=0.3, width=2)
    callback = combined(Diagnostics(3, (u[:, :1], s[:1], vt[:1])), lambda snapshot: {"twice": 2 * snapshot.iteration})
    history = dmf.gradient_descent(
        dmf.FullMatrix(target), network, 0.01, reduction="sum", iterations=4, record_every=2, callback=callback
    ).history
    assert history["twice"].tolist() == [0, 4, 8]
    assert history["singular_values"].shape == (3, 3)
    assert (history["singular_values"][:, 2] == 0).all()
    assert history["left_angles"].shape == (3, 1)
    with pytest.raises(dmf.errors.ArgumentError, match="two callbacks return error"):
        combined(lambda s: {"error": 1}, lambda s: {"error": 2})(None)
    assert combined(lambda s: None)(None) == {}


def test_bad_arguments_are_named():
    with pytest.raises(dmf.errors.ArgumentError, match="count=0"):
        Diagnostics(0)
    with pytest.raises(dmf.errors.ArgumentError, match="target has 1 parts"):
        Diagnostics(target=[np.ones((2, 2))])


def test_any_array_library_and_device():
    """Strict arrays on another device give the numbers of NumPy."""
    network = dmf.orthogonal_network((7, 6), scale=0.5, width=3)
    rng = np.random.default_rng(1)
    target = rng.standard_normal((7, 2)), rng.standard_normal((2, 6))
    to = lambda a: array_api_strict.asarray(a, device=array_api_strict.Device("device1"))  # noqa: E731
    other = dmf.DeepLinearNetwork([to(w) for w in network.weights])
    one = Diagnostics(3, target, layers=True)(SimpleNamespace(network=network))
    two = Diagnostics(3, tuple(map(to, target)), layers=True)(SimpleNamespace(network=other))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-12)
