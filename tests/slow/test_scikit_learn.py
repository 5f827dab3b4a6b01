"""The checks of scikit-learn on the imputer as it is constructed: it chooses its rank and its offsets in every fit."""

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'dmf[sklearn]'")

from sklearn.utils.estimator_checks import parametrize_with_checks

from dmf.estimators import DeepMatrixCompletion, TableImputer


@parametrize_with_checks([DeepMatrixCompletion(), TableImputer()])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)
