"""Gaussians and mixtures of them, fitted to tables with holes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dmf.tables.families import BY_NAME
from dmf.tables.gaussian import Gaussians, Patterns, Rows, gaussian_path, gaussian_step, one_gaussian
from dmf.tables.low_rank import low_rank_path
from dmf.tables.mixtures import fit_mixture

from helpers import examples

seeds = st.integers(0, 2**32 - 1)


def correlated(rng, n, d, share=0.3):
    table = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) / d**0.5 + rng.standard_normal(d)
    return table, np.where(rng.random((n, d)) < share, np.nan, table)


def rows_of(table):
    return Rows(table, Patterns.of(table), np.ones(len(table)))


@examples(4)
@given(n=st.integers(5, 40), d=st.integers(1, 6), seed=seeds)
def test_a_step_of_em_does_not_lower_the_likelihood(n, d, seed):
    """EM climbs the likelihood of what is observed (Dempster, Laird, Rubin 1977); here times a prior that is nearly flat."""
    holed = correlated(np.random.default_rng(seed), n, d)[1]
    mean, covariance, rows, last = np.zeros(d), np.eye(d), rows_of(holed), -np.inf
    for _ in range(15):
        mean, covariance, likelihood = gaussian_step(mean, covariance, rows, 0.1)
        posterior = likelihood  # of the parameters before the step
        assert posterior >= last - 0.5  # the prior and the weight of the mean at 0 move it by less
        last = posterior


def test_without_holes_the_covariance_is_that_of_the_rows(rng):
    table = correlated(rng, 50, 4)[0]
    table -= table.mean(axis=0)
    mean, covariance = np.zeros(4), np.eye(4)
    for _ in range(3):
        mean, covariance, _ = gaussian_step(mean, covariance, rows_of(table), 0.0)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(table.T, bias=True), atol=1e-10)


@examples(2)
@given(seed=seeds)
def test_order_of_rows_and_columns_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    holed = correlated(rng, 30, 4)[1]
    rows, columns = rng.permutation(30), rng.permutation(4)
    (*_, (_, model)), (*_, (_, moved)) = (
        gaussian_path(t, np.ones(30), (10, 1)) for t in (holed, holed[rows][:, columns])
    )
    np.testing.assert_allclose(moved.covariances[0], model.covariances[0][columns][:, columns], atol=1e-9)
    np.testing.assert_allclose(
        moved.moments(holed[rows][:, columns])[0], model.moments(holed)[0][rows][:, columns], atol=1e-8
    )


def test_planted_covariance_is_recovered(rng):
    loadings = rng.standard_normal((5, 2))
    planted = loadings @ loadings.T + np.diag([0.1, 0.2, 0.3, 0.4, 0.5])
    planted /= np.sqrt(np.outer(np.diag(planted), np.diag(planted)))
    table = rng.multivariate_normal(np.zeros(5), planted, 4000)
    holed = np.where(rng.random(table.shape) < 0.2, np.nan, table)
    *_, (_, model) = gaussian_path(holed, np.ones(4000))
    np.testing.assert_allclose(model.covariances[0], planted, atol=0.06)
    *_, (_, factors) = low_rank_path(holed, np.ones(4000), (1, 2))
    inner = factors.loadings[:, 1:]
    np.testing.assert_allclose(inner @ inner.T + np.diag(factors.noise), planted, atol=0.1)


def test_weights_count_rows(rng):
    holed = correlated(rng, 20, 3)[1]
    times = rng.integers(1, 4, 20)
    (*_, (_, weighted)) = gaussian_path(holed, times.astype(float), (3,))
    (*_, (_, repeated)) = gaussian_path(np.repeat(holed, times, axis=0), np.ones(times.sum()), (3,))
    np.testing.assert_allclose(weighted.covariances, repeated.covariances, atol=1e-9)


def test_a_mixture_tells_groups_apart(rng):
    far = rng.integers(0, 2, 300)
    table = rng.standard_normal((300, 3)) * 0.3 + np.where(far == 1, 1, -1)[:, None]
    table[:, 2] = far * table[:, 0] + (1 - far) * -table[:, 1]
    holed = np.where(rng.random(table.shape) < 0.2, np.nan, table)
    start = next(model for penalty, model in gaussian_path(holed, np.ones(300)) if penalty == 1)
    mixture = fit_mixture(holed, np.ones(300), start, 2)
    holes = np.isnan(holed)
    one, two = (np.mean((m.moments(holed)[0] - table)[holes] ** 2) for m in (start, mixture))
    assert two < 0.9 * one


def test_draws_have_the_conditional_moments(rng):
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    table = np.repeat([[1.0, np.nan]], 4000, axis=0)
    mixture = Gaussians(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [0.0, 4.0]]), np.stack([covariance] * 2))
    for model in (one_gaussian(np.zeros(2), covariance), mixture):
        mean, variance = model.moments(table[:1])
        drawn = model.draw(table, rng)[:, 1]
        np.testing.assert_allclose([drawn.mean(), drawn.var()], [mean[0, 1], variance[0, 1]], rtol=0.1)


def test_the_matrix_of_complete_is_a_distribution_of_rows(rng):
    """Also of rows that count differently, some of them not at all, as in a bootstrap."""
    table = rng.standard_normal((120, 2)) @ rng.standard_normal((2, 12)) + 0.3 * rng.standard_normal((120, 12))
    holed = np.where(rng.random(table.shape) < 0.3, np.nan, table)
    for weights in (np.ones(120), rng.multinomial(120, np.ones(120) / 120).astype(float)):
        *_, (_, model) = BY_NAME["dmf.complete"].path(holed, weights, None, 0, (12.0,))
        off = (model.moments(holed)[0] - table)[np.isnan(holed)]
        assert np.sqrt(np.mean(off**2)) < 0.5
