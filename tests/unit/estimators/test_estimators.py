"""The estimators as scikit-learn sees them: its own checks, cloning, pipelines, searches, tables of other libraries."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'dmf[sklearn]'")

from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import dmf
from dmf.estimators import DeepMatrixCompletion, DeepMatrixFactorization, DeepMatrixSensing, ImplicitRecommender

ESTIMATORS = [DeepMatrixCompletion(), DeepMatrixFactorization(), DeepMatrixSensing(), ImplicitRecommender()]
IMPUTING = [DeepMatrixCompletion(), DeepMatrixFactorization(rank=2)]


def table(rng, n=60, d=8, rank=2, share=0.8, noise=0.1):
    """Rows of a noisy low-rank matrix with holes; every column has an entry."""
    matrix = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) + noise * rng.standard_normal((n, d))
    return np.where(rng.random((n, d)) < share, matrix, np.nan)


# Of the imputer the checks run with one component and no offsets, and not on all sparse formats; as it is constructed, and
# on these, in tests/slow.
@parametrize_with_checks([DeepMatrixCompletion(rank=1, offsets=False), *ESTIMATORS[1:]])
def test_checks_of_scikit_learn(estimator, check):
    if isinstance(estimator, DeepMatrixCompletion) and check.func.__name__.startswith("check_estimator_sparse_"):
        pytest.skip("in tests/slow")
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_the_device_is_where_they_fit(estimator, rng):
    """A name that is none is an error of `fit`, and of nothing before."""
    with pytest.raises(dmf.errors.ArgumentError, match="device='gpu', but it is"):
        clone(estimator).set_params(device="gpu").fit(rng.random((6, 4)), np.ones(6))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_parameters_are_stored_untouched_and_cloned(estimator):
    given = estimator.get_params() | {"rank": object(), "random_state": object()}
    other = type(estimator)(**given)
    assert all(getattr(other, name) is value for name, value in given.items())
    assert clone(estimator).get_params() == estimator.get_params()


def test_importing_dmf_does_not_import_scikit_learn():
    code = "import sys, dmf; assert not any(name.split('.')[0] in ('sklearn', 'pandas') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn_there_is_one_clear_error():
    code = """
import sys
sys.modules["sklearn"] = None
import dmf
try:
    import dmf.estimators
except dmf.errors.MissingPackageError as error:
    assert "pip install 'dmf[sklearn]'" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("estimator", IMPUTING, ids=lambda e: type(e).__name__)
def test_pipelines_and_searches(estimator, rng):
    """The search finds the rank on which the target depends."""
    matrix = table(rng, share=1, noise=0.01)
    X, y = np.where(rng.random(matrix.shape) < 0.8, matrix, np.nan), matrix.sum(axis=1)
    pipeline = make_pipeline(clone(estimator), Ridge())
    assert np.isfinite(cross_val_score(pipeline, X, y, cv=3)).all()
    name = f"{type(estimator).__name__.lower()}__rank"
    search = GridSearchCV(pipeline, {name: [1, 2]}, cv=3).fit(X, y)
    assert search.best_params_[name] == 2


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("estimator", IMPUTING, ids=lambda e: type(e).__name__)
def test_frames_in_and_out(estimator, library, rng):
    frames = pytest.importorskip(library)
    X = table(rng)
    names = [f"sensor {j}" for j in range(X.shape[1])]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    fitted = clone(estimator).set_output(transform=library).fit(frame)
    result = fitted.transform(frame)
    assert isinstance(result, frames.DataFrame)
    assert list(fitted.feature_names_in_) == names
    assert list(result.columns) == list(fitted.get_feature_names_out())
    np.testing.assert_array_equal(np.asarray(result), clone(estimator).fit(X).transform(X))
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(
            frame.rename(columns={names[0]: "other"}) if library == "pandas" else frame.rename({names[0]: "other"})
        )


@pytest.mark.parametrize("estimator", IMPUTING, ids=lambda e: type(e).__name__)
def test_mixed_frames_of_numbers(estimator):
    """Floats, nullable integers and booleans are numbers; text is not."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "float": [0.5, None, 1.5, 2.0],
            "int": pandas.array([1, 2, None, 4], dtype="Int64"),
            "bool": [True, False, True, True],
        }
    )
    assert np.isfinite(clone(estimator).fit_transform(frame)).all()
    frame["text"] = list("abcd")
    with pytest.raises(dmf.errors.DTypeError, match=r"X holds what is no number \(.*'a'\)"):
        clone(estimator).fit(frame)


@pytest.mark.parametrize("estimator", IMPUTING, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("X", "words"),
    [
        ([[1.0, np.inf], [2.0, 3.0]], "infinity"),
        ([["a", "b"], ["c", "d"]], "what is no number"),
        ([[np.nan, np.nan]], "no entry is observed"),
        ([1.0, 2.0], "2D array"),
        (np.empty((0, 2)), "0 sample"),
        (np.ones((2, 2), complex), "[Cc]omplex"),
    ],
)
def test_bad_tables(estimator, X, words):
    with pytest.raises(ValueError, match=words):
        clone(estimator).fit(X)


@pytest.mark.parametrize("estimator", IMPUTING, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 9}, {"rank": 1.5}, {"random_state": -1}])
def test_bad_parameters(estimator, options, rng):
    with pytest.raises(ValueError, match=next(iter(options)).replace("random_state", "seed")):
        clone(estimator).set_params(**options).fit(table(rng))


@pytest.mark.parametrize("estimator", IMPUTING, ids=lambda e: type(e).__name__)
def test_float32_is_kept_and_mixes_with_float64(estimator, rng):
    X = table(rng)
    small = X.astype(np.float32)
    assert clone(estimator).fit(small).transform(small).dtype == np.float32
    assert clone(estimator).fit(small).transform(X).dtype == np.float64 or isinstance(
        estimator, DeepMatrixFactorization
    )
    np.testing.assert_allclose(
        clone(estimator).fit(X).transform(small), clone(estimator).fit(X).transform(X), rtol=0, atol=1e-4
    )


def test_random_state_takes_generators(rng):
    X = table(rng)
    pair = [DeepMatrixCompletion(random_state=np.random.RandomState(3)).fit_transform(X) for _ in range(2)]
    np.testing.assert_array_equal(*pair)
    assert np.isfinite(DeepMatrixCompletion(random_state=None).fit_transform(X)).all()


def test_sensing_finds_a_low_rank_matrix(rng):
    """From fewer measurements than entries, exactly; as a sparse matrix too."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    M = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    A = rng.standard_normal((90, 120))
    model = DeepMatrixSensing(shape=(12, 10)).fit(A[:80], A[:80] @ M.ravel())
    np.testing.assert_allclose(model.matrix_, M, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(model.coef_, model.matrix_.ravel())
    np.testing.assert_allclose(model.predict(A[80:]), A[80:] @ M.ravel(), rtol=0, atol=1e-8)
    assert model.score(A, A @ M.ravel()) == pytest.approx(1)
    assert (model.rank_, model.noise_, model.n_features_in_) == (2, 0.0, 120)
    sparse = DeepMatrixSensing(shape=(12, 10)).fit(scipy_sparse.csr_array(A[:80]), A[:80] @ M.ravel())
    np.testing.assert_allclose(sparse.matrix_, M, rtol=0, atol=1e-6)


def test_sensing_without_a_shape_is_vector_regression(rng):
    A = rng.standard_normal((50, 5))
    np.testing.assert_allclose(DeepMatrixSensing().fit(A, A @ np.arange(5.0)).coef_, np.arange(5.0), atol=1e-9)


@pytest.mark.parametrize("shape", [(2, 4), (3,), 6, (2, -3), (1.5, 4)])
def test_bad_shapes(shape, rng):
    with pytest.raises(dmf.errors.ShapeError, match="shape="):
        DeepMatrixSensing(shape=shape).fit(rng.standard_normal((9, 6)), np.ones(9))


def test_iterations_are_limited_and_checked(rng):
    X = table(rng)
    assert DeepMatrixCompletion(max_iter=2).fit(X).n_iter_ == 2
    with pytest.raises(ValueError, match="max_iter=-1"):
        DeepMatrixCompletion(max_iter=-1).fit(X)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array], ids=["array", "sparse"])
def test_sample_weight_is_the_weight_of_each_entry_of_a_row(form, rng):
    """Alone, and times those of the entries; rows of weight 0 are not seen, and a common factor does not matter to the fit."""
    full = table(rng, 40, share=1.0)
    X = form(np.where(rng.random(full.shape) < 0.8, full, 0.0 if form is scipy.sparse.csr_array else np.nan))
    rows, each = rng.uniform(0.5, 2, 40), rng.uniform(0.5, 2, full.shape)
    rows[7] = 0
    new = DeepMatrixCompletion(rank=2)
    for options, product in (({}, np.ones(full.shape)), ({"weights": each}, each)):
        by_row = clone(new).fit(X, sample_weight=rows, **options)
        by_entry = clone(new).fit(X, weights=rows[:, None] * product)
        np.testing.assert_allclose(by_row.recovery_.product(), by_entry.recovery_.product(), rtol=1e-12)
        assert by_row.noise_ == pytest.approx(by_entry.noise_)
    assert not np.allclose(by_row.components_, clone(new).fit(X).components_)
    parts = clone(new).partial_fit(X[:25], sample_weight=rows[:25]).partial_fit(X[25:], sample_weight=rows[25:])
    np.testing.assert_allclose(parts.components_, clone(new).fit(X, sample_weight=rows).components_, rtol=1e-12)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ones(3), r"sample_weight has shape \(3,\), but X has 40 rows"),
        (np.ones((40, 8)), "`weights` takes one for each entry"),
        (np.full(40, -1.0), "weight"),
        (np.full(40, np.nan), "weight"),
        (np.zeros(40), "all weights are zero"),
        (["a"] * 40, "numbers are needed"),
    ],
)
def test_a_bad_sample_weight(bad, match, rng):
    with pytest.raises((ValueError, dmf.errors.DmfError), match=match):
        DeepMatrixCompletion(rank=1).fit(table(rng, 40), sample_weight=bad)


@pytest.mark.parametrize("library", ["numpy", "pandas", "polars", "sparse"])
def test_a_number_may_mark_missing_cells(library, rng):
    X = table(rng)
    gone = np.isnan(X) | (np.arange(X.size).reshape(X.shape) % 7 == 0)
    X, marked = np.where(gone, np.nan, X), np.where(gone, -999, X)
    if library == "sparse":
        marked = scipy.sparse.csr_array(marked)
    elif library != "numpy":
        marked = pytest.importorskip(library).DataFrame(marked)
    found, expected = DeepMatrixCompletion(missing_values=-999).fit(marked), DeepMatrixCompletion().fit(X)
    np.testing.assert_allclose(found.recovery_.product(), expected.recovery_.product())


def test_columns_of_dates_are_named(rng):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(rng)).rename(columns=str).assign(when=pandas.date_range("2024", periods=60))
    with pytest.raises(dmf.errors.DTypeError, match=r"dates or times in 'when'\), but"):
        DeepMatrixCompletion().fit(frame)


@pytest.mark.parametrize("rank", [None, "path"])
def test_outliers_are_left_out_and_replaced(rank, rng):
    """What comes back is the matrix without what was wrong in it; more rows bring outliers of their own."""
    truth = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 25))
    wrong = np.where(rng.random(truth.shape) < 0.05, 20 * rng.standard_normal(truth.shape), 0.0)
    holes = np.where(rng.random(truth.shape) < 0.7, truth + wrong, np.nan)
    robust = DeepMatrixCompletion(rank, outliers=True, offsets=False)
    np.testing.assert_allclose(robust.fit_transform(holes), truth, atol=1e-8)
    assert len(robust.recovery_.outliers) == np.sum((wrong != 0) & ~np.isnan(holes))
    assert robust.rank_ == 2
    if rank is None:
        parts = clone(robust).fit(holes[:30]).partial_fit(holes[30:])
        np.testing.assert_allclose(parts.recovery_.product(), truth, atol=1e-8)
        np.testing.assert_allclose(parts.transform(np.where(wrong == 0, holes, np.nan)), truth, atol=1e-6)


def test_outliers_are_asked_for_by_true_or_false(rng):
    with pytest.raises(dmf.errors.ArgumentError, match="outliers"):
        DeepMatrixCompletion(outliers="yes").fit(table(rng))
