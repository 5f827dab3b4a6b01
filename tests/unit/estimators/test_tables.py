"""What the imputer and the transformer compute."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'dmf[sklearn]'")

from sklearn.decomposition import TruncatedSVD

import dmf
from dmf.estimators import DeepMatrixCompletion, DeepMatrixFactorization

from helpers import examples, seeds

UNITS = np.array([1e-3, 1.0, 50.0, 1e4, 0.1, 7.0])


def low_rank(rng, n=120, d=6, rank=2, noise=0.0):
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) + noise * rng.standard_normal((n, d))


def holed(matrix, rng, share=0.7):
    return np.where(rng.random(matrix.shape) < share, matrix, np.nan)


@examples(3)
@given(seed=seeds)
def test_entries_are_kept_and_holes_are_filled(seed):
    rng = np.random.default_rng(seed)
    X = holed(low_rank(rng, 20, noise=0.2), rng)
    X[0, 0] = 1.0
    imputer = DeepMatrixCompletion()
    for filled in (imputer.fit_transform(X), imputer.transform(X)):
        assert filled.shape == X.shape and np.isfinite(filled).all()
        seen = ~np.isnan(X)
        np.testing.assert_array_equal(filled[seen], X[seen])


def test_exact_tables_are_filled_exactly(rng):
    matrix = low_rank(rng, 80, 40, 3)
    X = holed(matrix, rng, 0.5)
    imputer = DeepMatrixCompletion()
    np.testing.assert_allclose(imputer.fit_transform(X[:60]), matrix[:60], rtol=0, atol=1e-10)
    np.testing.assert_allclose(imputer.transform(X[60:]), matrix[60:], rtol=0, atol=1e-10)
    assert imputer.rank_ == 3 and imputer.noise_ == 0 and imputer.n_iter_ > 0
    np.testing.assert_allclose(imputer.components_ @ imputer.components_.T, np.eye(3), atol=1e-12)
    assert imputer.components_.shape == (3, 40)


def test_new_rows_are_imputed_nearly_as_well_as_fitted_ones(rng):
    truth = low_rank(rng, 400, 20, 2)
    X = holed(truth + 0.3 * rng.standard_normal(truth.shape), rng)
    imputer = DeepMatrixCompletion().fit(X[:300])
    holes = np.isnan(X)
    errors = [
        np.sqrt(np.mean((filled - part)[hole] ** 2))
        for filled, part, hole in (
            (imputer.fit_transform(X[:300]), truth[:300], holes[:300]),
            (imputer.transform(X[300:]), truth[300:], holes[300:]),
        )
    ]
    assert errors[1] < 1.2 * errors[0] < 0.3


def test_transform_sees_one_row_at_a_time(rng):
    X = holed(low_rank(rng, 30, noise=0.2), rng)
    imputer = DeepMatrixCompletion().fit(X)
    single = np.vstack([imputer.transform(row[None]) for row in X])
    np.testing.assert_allclose(single, imputer.transform(X), rtol=0, atol=1e-12)


def test_partial_fit_is_fit_on_all_rows(rng):
    """To the last bit: it is the same computation."""
    X = holed(low_rank(rng, noise=0.2), rng)
    whole = DeepMatrixCompletion().fit(X)
    parts = DeepMatrixCompletion()
    for part in (X[:50], X[50:90], X[90:]):
        assert parts.partial_fit(part) is parts
    np.testing.assert_array_equal(parts.transform(X), whole.transform(X))
    np.testing.assert_array_equal(parts.recovery_.product(), whole.recovery_.product())
    np.testing.assert_array_equal(parts.noise_, whole.noise_)
    with pytest.raises(ValueError, match="features"):
        parts.partial_fit(X[:, :3])
    mixed = DeepMatrixCompletion().fit(X[:50].astype(np.float32)).partial_fit(X[50:])
    assert mixed.recovery_.network.dtype == np.float32


def test_sparse_matrices_hold_what_was_observed(rng):
    X = holed(low_rank(rng, noise=0.2), rng)
    X[:5, 0] = 0.0  # explicit zeros are observed
    rows, cols = np.nonzero(~np.isnan(X))
    sparse = scipy.sparse.csr_array((X[rows, cols], (rows, cols)), shape=X.shape)
    dense, stored = DeepMatrixCompletion(), DeepMatrixCompletion()
    np.testing.assert_array_equal(stored.fit_transform(sparse), dense.fit_transform(X))
    np.testing.assert_array_equal(stored.transform(sparse), dense.transform(X))
    np.testing.assert_array_equal(stored.fit_transform(sparse)[:5, 0], 0)
    empty = scipy.sparse.csr_array((2, 6))
    np.testing.assert_array_equal(stored.transform(empty), dense.transform(np.full((2, 6), np.nan)))


@pytest.mark.filterwarnings("ignore:.*columns without any entry")
def test_columns_and_rows_without_entries_get_the_mean_of_the_others(rng):
    X = holed(low_rank(rng, noise=0.2) + 4, rng)
    X[:, 2] = np.nan
    plain = DeepMatrixCompletion(offsets=False)
    filled = plain.fit_transform(X)
    means = np.delete(plain.recovery_.product(), 2, axis=1).mean(axis=1)
    np.testing.assert_allclose(filled[:, 2], means, rtol=1e-10)
    imputer = DeepMatrixCompletion(offsets=True).fit(X)
    rows = imputer.transform(np.full((2, 6), np.nan))
    np.testing.assert_allclose(rows, np.tile(imputer.recovery_.product().mean(axis=0), (2, 1)), atol=1e-9)
    np.testing.assert_allclose(imputer.transform(np.vstack([X[:1], rows[:1] * np.nan]))[1], rows[0], atol=1e-9)
    assert abs(imputer.fit_transform(X)[:, 2].mean() - 4) < 1


@pytest.mark.filterwarnings("ignore:.*columns without any entry")
@pytest.mark.parametrize(
    "X", [[[3.0]], [[np.nan, 2.0]], [[1.0, np.nan, 2.0]], [[1.0], [np.nan], [4.0]], [[0.0, np.nan], [0.0, 0.0]]]
)
def test_degenerate_tables(X):
    """One entry, one row, one column, zeros."""
    X = np.array(X)
    imputer = DeepMatrixCompletion()
    for filled in (imputer.fit_transform(X), imputer.transform(X)):
        assert np.isfinite(filled).all()
        np.testing.assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert np.isfinite(DeepMatrixFactorization().fit(X).transform(X)).all()


def test_factorization_is_the_truncated_svd(rng):
    X = low_rank(rng, 60, 20, 3, noise=0.3)
    ours, theirs = DeepMatrixFactorization(rank=3), TruncatedSVD(3, algorithm="arpack")
    scores, expected = ours.fit_transform(X), theirs.fit_transform(X)
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), rtol=0, atol=1e-9)  # signs are free
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-10)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(ours.components_ @ ours.components_.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(ours.inverse_transform(scores), theirs.inverse_transform(expected), atol=1e-9)
    assert list(ours.get_feature_names_out()) == [f"deepmatrixfactorization{k}" for k in range(3)]
    assert DeepMatrixFactorization().fit(X).rank_ == 3
    with pytest.raises(dmf.errors.ShapeError, match="3 scores"):
        ours.inverse_transform(scores[:, :2])


def test_factorization_with_missing_values(rng):
    """Exact data: the scores are those of the whole table, for fitted rows and new ones."""
    matrix = low_rank(rng, 90, 40, 3)
    X = holed(matrix, rng, 0.5)
    model = DeepMatrixFactorization().fit(X[:70])
    assert (model.rank_, model.noise_) == (3, 0.0)
    np.testing.assert_allclose(model.transform(X), matrix @ model.components_.T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), matrix, rtol=0, atol=1e-8)
    whole = DeepMatrixFactorization().fit(matrix[:70])
    np.testing.assert_allclose(np.abs(whole.transform(X)), np.abs(model.transform(X)), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(model.transform(np.full((1, 40), np.nan)), np.zeros((1, 3)))


def test_factorization_of_nothing_but_noise_has_one_component(rng):
    model = DeepMatrixFactorization().fit(rng.standard_normal((30, 20)))
    assert model.rank_ == 0 and model.components_.shape == (1, 20)
    assert model.transform(rng.standard_normal((4, 20))).shape == (4, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*spreads of columns")
def test_what_is_filled_in_stays_within_the_bounds_of_its_column(rng):
    """In the units of the columns; entries that were there are kept."""
    X = holed(low_rank(rng, noise=0.3), rng) * UNITS
    plain = DeepMatrixCompletion().fit(X)
    low, high = -0.5 * UNITS, 0.25 * UNITS
    high[0] = np.inf
    bounded = DeepMatrixCompletion(min_value=low, max_value=high)
    expected = np.where(np.isnan(X), np.clip(plain.fit_transform(X), low, high), X)
    np.testing.assert_allclose(bounded.fit_transform(X), expected, rtol=1e-12)
    np.testing.assert_array_equal(bounded.transform(X), np.where(np.isnan(X), plain.transform(X).clip(low, high), X))
    assert (DeepMatrixCompletion(min_value=0).fit(X).transform(np.full((1, 6), np.nan)) >= 0).all()
    assert bounded.fit(X.astype(np.float32)).transform(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    "bounds", [{"min_value": 1, "max_value": 1}, {"min_value": np.zeros(5)}, {"max_value": "1"}, {"min_value": np.nan}]
)
def test_bad_bounds(bounds, rng):
    with pytest.raises(dmf.errors.ArgumentError, match=r"bounds|min_value"):
        DeepMatrixCompletion(**bounds).fit(holed(low_rank(rng, noise=0.3), rng))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*spreads of columns")
def test_intervals_hold_what_is_missing(rng):
    """90 % of the holes of fitted and of new rows, to 4 standard errors and what the fits differ by."""
    truth = low_rank(rng, 600, 6) * UNITS
    truth += 0.3 * UNITS * rng.standard_normal(truth.shape)
    X = holed(truth, rng)
    imputer = DeepMatrixCompletion(holdout=0.2).fit(X[:400])
    holes = np.isnan(X)
    low, high = imputer.intervals(X)
    np.testing.assert_array_equal(low[~holes], X[~holes])
    np.testing.assert_array_equal(high[~holes], X[~holes])
    for rows in (slice(400), slice(400, None)):
        inside = ((low <= truth) & (truth <= high))[rows][holes[rows]]
        assert abs(inside.mean() - 0.9) < 4 * np.sqrt(0.09 * (1 / 336 + 1 / inside.size)) + 0.01
    widths = [(high - low)[holes[:, j], j] for j in range(6)]
    np.testing.assert_allclose([w.min() for w in widths], [w.max() for w in widths])
    assert imputer.recovery_.heldout.count == round(0.2 * (~holes[:400]).sum())
    capped = DeepMatrixCompletion(holdout=0.2, max_value=0.0).fit(X[:60])
    assert (capped.intervals(X)[1][holes] <= 0).all()
    with pytest.raises(dmf.errors.ArgumentError, match="held-out entries"):
        DeepMatrixCompletion().fit(X).intervals(X)


def test_the_rank_by_a_path(rng):
    X = holed(low_rank(rng, 90, 30, 3, noise=0.3), rng)
    imputer = DeepMatrixCompletion(rank="path", offsets=False).fit(X)
    assert imputer.rank_path_.best == imputer.rank_ == 3
    assert len(imputer.rank_path_.steps) >= 4 and imputer.rank_path_.offsets is False
    refitted = imputer.rank_path_.refit()
    np.testing.assert_array_equal(imputer.recovery_.product(), refitted.product())
    with pytest.raises(dmf.errors.RankError, match="'other'"):
        DeepMatrixCompletion(rank="other").fit(X)


def test_columns_of_their_own_units_are_told_and_one_without_entries_stays_empty(rng):
    table = rng.normal([50_000, 0.5, 40, 7], [8_000, 0.3, 10, 1], (40, 4))
    table[:, 3] = np.nan
    table[0, 0] = np.nan
    with pytest.warns(UserWarning, match=r"TableImputer; 1 columns without any entry \(3\) stay empty"):
        filled = DeepMatrixCompletion().fit_transform(table)
    assert np.isnan(filled[:, 3]).all() and np.isfinite(filled[:, :3]).all()
    alike = rng.standard_normal((40, 1)) + 290 + rng.standard_normal((40, 5))
    alike[:, 2] = np.nan
    with pytest.warns(UserWarning, match=r"1 columns without any entry \(2\) are filled with the means of rows"):
        filled = DeepMatrixCompletion().fit_transform(alike)
    assert np.abs(filled - 290).max() < 10
