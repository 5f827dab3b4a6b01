"""Behind the interface of scikit-learn: imputers of tables and of matrices, a transformer, a regressor and a recommender."""

from dmf.errors import MissingPackageError

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingPackageError(
        "dmf.estimators needs scikit-learn, which is not installed. Install it with: pip install 'dmf[sklearn]'. "
        "dmf.complete_table, dmf.complete, dmf.factorize and dmf.sense do the same without it."
    ) from error

from dmf.estimators.completion import DeepMatrixCompletion
from dmf.estimators.factorization import DeepMatrixFactorization
from dmf.estimators.imputer import TableImputer
from dmf.estimators.recommender import ImplicitRecommender
from dmf.estimators.sensing import DeepMatrixSensing

__all__ = [
    "DeepMatrixCompletion",
    "DeepMatrixFactorization",
    "DeepMatrixSensing",
    "ImplicitRecommender",
    "TableImputer",
]
