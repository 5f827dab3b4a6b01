"""Complex matrices: every quantity against the real embedding [[Re, -Im], [Im, Re]], in which nothing is complex."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.solvers import SGD, Adam, Curvature, Huber
from dmf.theory import balancedness, energy_outside, principal_angles

from helpers import LIBRARIES, examples, seeds


def drawn(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def embedded(matrix):
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def problem(kind, seed, shape=(5, 4), count=30):
    """Complex observations, and the real ones of the embedded matrix, whose squared residuals are twice those."""
    rng = np.random.default_rng(seed)
    target = drawn(rng, shape[0], 2) @ drawn(rng, 2, shape[1])
    if kind == "full":
        return target, dmf.FullMatrix(target), dmf.FullMatrix(embedded(target))
    maps = drawn(rng, count, *shape) / count**0.5
    values = np.einsum("mij,ij->m", maps.conj(), target)
    # Re and Im of <A, X> are half of the real inner products of the embedded X with the embedded A and i A.
    real = np.stack([embedded(turn * a) for turn in (1, 1j) for a in maps]) / 2**0.5
    return (
        target,
        dmf.LinearMeasurements(maps, values),
        dmf.LinearMeasurements(real, 2**0.5 * np.concatenate([values.real, values.imag])),
    )


@pytest.mark.parametrize("kind", ["full", "sensing"])
@given(
    seed=seeds, depth=st.integers(1, 4), momentum=st.sampled_from([None, 0.0, 0.9]), decay=st.sampled_from([0.0, 0.1])
)
@examples(6)
def test_descent_is_that_of_the_real_embedding(kind, seed, depth, momentum, decay):
    """Weights and losses of 15 steps, whole matrix and measurements, with a fixed step and with momentum."""
    _, ours, theirs = problem(kind, seed)
    start = dmf.orthogonal_network(ours.shape, depth, 0.6, width=3, seed=seed, like=np.zeros(0, complex))
    real = dmf.DeepLinearNetwork([embedded(w) for w in start.weights])
    step = 2e-3 if momentum is None else SGD(2e-3, momentum)
    options = {"outer_scale": 2.0, "weight_decay": decay, "reduction": "sum", "iterations": 15}
    run, other = dmf.gradient_descent(ours, start, step, **options), dmf.gradient_descent(theirs, real, step, **options)
    np.testing.assert_allclose(2 * run.history.loss, other.history.loss, rtol=1e-10)
    for one, two in zip(run.network.weights, other.network.weights, strict=True):
        assert one.dtype == np.complex128
        np.testing.assert_allclose(embedded(one), two, rtol=0, atol=1e-11 * (1 + np.abs(two).max()))


@pytest.mark.parametrize("kind", ["full", "sensing"])
@given(seed=seeds)
@examples(6)
def test_gradients_are_those_of_finite_differences(kind, seed):
    """Of the loss along a complex direction D: Re <gradient, D>."""
    _, observations, _ = problem(kind, seed)
    rng = np.random.default_rng(seed)
    left, right, d_left, d_right = (drawn(rng, *shape) for shape in [(5, 2), (2, 4)] * 2)
    loss, by_left, by_right = observations.evaluate(left, right)
    np.testing.assert_allclose(loss, observations.loss(left, right), rtol=1e-12)
    h = 1e-6
    ahead, behind = (float(observations.loss(left + t * d_left, right + t * d_right)) for t in (h, -h))
    slope = np.vdot(by_left, d_left).real + np.vdot(by_right, d_right).real
    assert abs((ahead - behind) / (2 * h) - slope) < 1e-6 * (1 + float(loss))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("kind", ["full", "sensing"])
def test_the_compressed_network_finds_the_matrix(kind, dtype):
    """From the spectral start, both parts of a split of the measurements included; the dtype stays."""
    target, observations, _ = problem(kind, 3, (8, 7), 150)
    observations = (
        dmf.FullMatrix(observations.matrix.astype(dtype))
        if kind == "full"
        else dmf.LinearMeasurements(
            np.reshape(observations.operator._flat, (-1, 8, 7)).astype(dtype),
            observations.values.astype(dtype),
        )
    )
    start = dmf.spectral_network(observations, 2, scale=0.5)
    assert start.dtype == dtype
    run = dmf.gradient_descent(observations, start, 2e-3, reduction="sum", iterations=1_500, record_every=500)
    error = np.linalg.norm(run.network.product() - target) / np.linalg.norm(target)
    assert run.network.product().dtype == dtype
    assert error < (1e-5 if dtype == np.complex64 else 1e-10)
    entry = run.network.entries(np.array([1, 4]), np.array([3, 0]))
    np.testing.assert_allclose(entry, run.network.product()[[1, 4], [3, 0]], rtol=1e-4)


def test_every_library_computes_the_same():
    for kind in ("full", "sensing"):
        found = []
        for move in LIBRARIES.values():
            _, ours, _ = problem(kind, 5)
            maps = None if kind == "full" else np.reshape(ours.operator._flat, (-1, 5, 4))
            ours = (
                dmf.FullMatrix(move(ours.matrix))
                if kind == "full"
                else dmf.LinearMeasurements(move(maps), move(ours.values))
            )
            start = dmf.orthogonal_network((5, 4), 3, 0.6, width=3, like=ours.like)
            found.append(dmf.gradient_descent(ours, start, 2e-3, reduction="sum", iterations=20).history.loss)
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-9)


@pytest.mark.parametrize("distribution", ["orthogonal", "normal", "uniform"])
def test_complex_starts(distribution):
    """Semi-unitary, or of the same expected size, and not real in disguise."""
    start = dmf.orthogonal_network((40, 30), 3, 0.5, distribution=distribution, like=np.zeros(1, np.complex64))
    for weight in start.weights:
        assert weight.dtype == np.complex64
        assert 0.4 < np.linalg.norm(weight.imag) ** 2 / np.linalg.norm(weight) ** 2 < 0.6
        np.testing.assert_allclose(np.linalg.norm(weight), 0.5 * min(weight.shape) ** 0.5, rtol=0.1)
        if distribution == "orthogonal":
            small = weight if weight.shape[0] <= weight.shape[1] else weight.conj().T
            np.testing.assert_allclose(small @ small.conj().T, 0.25 * np.eye(len(small)), atol=1e-6)


def test_curvature_is_that_of_the_real_embedding():
    _, ours, theirs = problem("full", 7)
    start = dmf.orthogonal_network(ours.shape, 3, 0.9, width=3, seed=7, like=np.zeros(0, complex))
    real = dmf.DeepLinearNetwork([embedded(w) for w in start.weights])
    for operator in ("gauss_newton", "hessian"):
        one = Curvature(ours, start, reduction="sum").largest(operator, accuracy=1e-6)
        directions = tuple(np.asarray(drawn(np.random.default_rng(1), *w.shape)) for w in start.weights)
        mine = getattr(Curvature(ours, start, reduction="sum"), operator)(directions)
        other = getattr(Curvature(theirs, real, reduction="sum"), operator)(tuple(map(embedded, directions)))
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(embedded(a), b, rtol=0, atol=1e-10 * np.abs(b).max())
        rayleigh = sum(np.vdot(d, m).real for d, m in zip(directions, mine, strict=True))
        assert one >= rayleigh / sum(np.vdot(d, d).real for d in directions)


def test_subspaces_of_complex_matrices():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(drawn(rng, 6, 2))[0]
    turned = basis @ np.linalg.qr(drawn(rng, 2, 2))[0]
    np.testing.assert_allclose(principal_angles(basis, turned), 0, atol=1e-7)
    other = np.linalg.qr(drawn(rng, 5, 2))[0]
    assert energy_outside(basis @ drawn(rng, 2, 2) @ other.conj().T, basis, other) < 1e-28
    network = dmf.orthogonal_network((6, 6), 3, 0.5, like=basis)
    for difference in balancedness(network):
        np.testing.assert_allclose(difference, 0, atol=1e-14)


FULL = dmf.FullMatrix(drawn(np.random.default_rng(0), 4, 3))
START = dmf.spectral_network(FULL, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: dmf.factorize(FULL.matrix),
        lambda: dmf.sense(np.ones((6, 2, 2)) * 1j, np.ones(6) * 1j),
        lambda: dmf.complete(FULL.matrix),
        lambda: dmf.gradient_descent(FULL, START, Adam(0.1), iterations=2),
        lambda: dmf.gradient_descent(FULL, START, 0.1, loss=Huber(1.0), iterations=2),
        lambda: dmf.gradient_descent(FULL, START, 0.1, exact_compression=True, iterations=2),
        lambda: dmf.theory.exact_compression(FULL.matrix, START),
        lambda: FULL.ridge(0, np.ones((3, 1), complex), np.ones(1)),
        lambda: dmf.nonlinear.Dense(np.ones((2, 2), complex)),
        lambda: dmf.LinearMeasurements(np.ones((6, 2, 2)), np.ones(6) * 1j),
    ],
)
def test_what_is_for_real_matrices_says_so(call):
    with pytest.raises(dmf.errors.DTypeError, match="complex128"):
        call()
