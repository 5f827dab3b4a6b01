"""The rank that stands out of noise, against the free energy itself and Monte Carlo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmf.completion.visible_rank import visible_rank

from helpers import examples, seeds

EPS = np.finfo(float).eps


def seen(matrix):
    return visible_rank(np.linalg.svd(matrix, compute_uv=False), matrix.shape)


def signal(rng, shape, sizes):
    """Matrix with these singular values and random singular vectors."""
    u, v = (np.linalg.qr(rng.standard_normal((n, len(sizes))))[0] for n in shape)
    return (u * sizes) @ v.T


def free_energy(singular_values, shape, variance):
    """Twice the variational free energy at a noise variance, up to a constant, and the number of components kept.

    A component of size g with posterior shares ``p = ||mean a||^2 / E||a||^2`` and q contributes, after its prior variances and
    its scale are eliminated, ``-M log(1 - p) - L log(1 - q) - p q g^2 / variance``; q is optimal at ``1 - L variance / (p g^2)``.
    The minimum over p is taken on a grid; zero is the value without the component.
    """
    small, large = sorted(shape)
    p = 1 - np.logspace(-9, 0, 4_000, endpoint=False)
    total, kept = small * large * np.log(variance) + np.sum(singular_values**2) / variance, 0
    for square in singular_values**2 / variance:
        q = 1 - small / (p * square)
        inside = q > 0
        values = -large * np.log(1 - p[inside]) - small * np.log(1 - q[inside]) - p[inside] * q[inside] * square
        least = np.min(values, initial=0.0)
        total, kept = total + least, kept + (least < 0)
    return total, kept


@pytest.mark.parametrize("shape", [(20, 20), (15, 40), (30, 22)])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_noise_minimises_the_free_energy(shape, rank):
    """No level on a grid is better, and the components kept are those whose free energy is negative.

    The grid over p overestimates a minimum by about the square of its relative spacing, 5e-3, times a curvature of M + L;
    1e-4 L M leaves room for three such components.
    """
    rng = np.random.default_rng([*shape, rank])
    edge = np.sqrt(shape[0]) + np.sqrt(shape[1])
    matrix = signal(rng, shape, edge * np.linspace(4, 2, rank)) + rng.standard_normal(shape)
    values = np.linalg.svd(matrix, compute_uv=False)
    found, noise = visible_rank(values, shape)
    energy, kept = free_energy(values, shape, noise**2)
    assert found == kept == rank
    best = min(free_energy(values, shape, variance)[0] for variance in np.geomspace(0.3, 3, 60) * noise**2)
    assert energy <= best + 1e-4 * shape[0] * shape[1]


@pytest.mark.parametrize("shape", [(40, 60), (50, 50), (120, 30)])
def test_pure_noise_has_no_rank(shape):
    """In at least 38 of 40 draws; the level then has a standard deviation of ``1 / sqrt(2 d1 d2)``: 5 of these and 2e-3.

    (The last is for the share of the spectrum that the empirical prior takes for signal.)
    """
    found = [seen(3.0 * np.random.default_rng(seed).standard_normal(shape)) for seed in range(40)]
    assert sum(rank == 0 for rank, _ in found) >= 38
    levels = np.array([noise for rank, noise in found if rank == 0]) / 3
    assert np.max(np.abs(levels - 1)) <= 5 / np.sqrt(2 * shape[0] * shape[1]) + 2e-3


@pytest.mark.parametrize("shape", [(40, 60), (50, 50), (120, 30)])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_components_twice_above_the_edge_are_counted(shape, rank):
    """Twice the largest singular value of noise; the mean of the level over 10 draws is right within 2 %.

    A component explains noise, too, and the free energy counts its ``d1 + d2`` degrees of freedom.
    """
    levels = []
    for seed in range(10):
        rng = np.random.default_rng([seed, *shape, rank])
        sizes = 0.1 * (np.sqrt(shape[0]) + np.sqrt(shape[1])) * np.linspace(6, 2, rank)
        found, noise = seen(signal(rng, shape, sizes) + 0.1 * rng.standard_normal(shape))
        assert found == rank
        levels.append(noise / 0.1)
    assert np.all(np.abs(np.array(levels) - 1) <= 0.06)
    assert abs(np.mean(levels) - 1) <= 0.02


@given(seed=seeds, shape=st.tuples(st.integers(3, 25), st.integers(3, 25)), data=st.data())
def test_an_exact_rank_has_no_noise(seed, shape, data):
    """Down to singular values of 1e-8 of the largest, far above rounding."""
    rank = data.draw(st.integers(1, min(shape) - 1))
    sizes = 10.0 ** -np.sort(np.random.default_rng(seed).uniform(0, 8, rank))
    assert seen(signal(np.random.default_rng(seed), shape, sizes)) == (rank, 0.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3)])
def test_zeros_have_neither_rank_nor_noise(shape):
    assert seen(np.zeros(shape)) == (0, 0.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_a_single_row_or_column_is_of_rank_one(shape):
    """Nothing tells its noise from its signal."""
    assert seen(np.random.default_rng(0).standard_normal(shape)) == (1, 0.0)


@examples(12)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    rank=st.integers(0, 3),
    power=st.integers(-60, 60),
)
def test_units_and_transposition_change_nothing(seed, shape, rank, power):
    """Powers of two scale without rounding; 1e-4 is ten times the accuracy of the search for the logarithm of the level."""
    rng = np.random.default_rng(seed)
    strength = 3 * (np.sqrt(shape[0]) + np.sqrt(shape[1]))
    matrix = signal(rng, shape, strength * np.ones(min(rank, *shape))) + rng.standard_normal(shape)
    found, noise = seen(matrix)
    scaled, level = seen(matrix * 2.0**power)
    assert scaled == found
    assert level == pytest.approx(noise * 2.0**power, rel=1e-4)
    turned, level = seen(np.ascontiguousarray(matrix.T))
    assert turned == found
    assert level == pytest.approx(noise, rel=1e-4)


def test_float32_counts_by_its_own_rounding():
    """What float64 would take for noise, 1e-8 of the largest, is rounding in float32."""
    values = np.array([1.0, 0.5, 1e-8, 1e-8])
    assert visible_rank(values.astype(np.float32), (4, 30)) == (2, 0.0)
    rank, noise = visible_rank(values, (4, 30))
    assert rank == 2
    assert 0 < noise < 1e-8
