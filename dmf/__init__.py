"""Recover low-rank matrices from partial or indirect measurements with compressed deep linear networks."""

from dmf import theory
from dmf.errors import (
    ArgumentError,
    BackendError,
    DmfError,
    DTypeError,
    FileError,
    MissingPackageError,
    ObservationError,
    RankError,
    ShapeError,
)
from dmf.fold_in import new_columns, new_rows
from dmf.intervals import calibrate, prediction_interval
from dmf.networks import DeepLinearNetwork, orthogonal_network, spectral_network
from dmf.observations import (
    FullMatrix,
    LinearMeasurements,
    Observations,
    RankOneMeasurements,
    SampledEntries,
    SubsampledTransform,
    WeightedEntries,
)
from dmf.rank_path import RankPath, RankStep, rank_path
from dmf.recover import complete, factorize, sense
from dmf.results import History, Recovery, Status, load
from dmf.solvers import (
    alternating_minimization,
    continuation,
    follow_gradient_flow,
    gradient_descent,
    largest_curvature,
    refine,
    variational_bayes,
)

__all__ = [
    "ArgumentError",
    "BackendError",
    "DTypeError",
    "DeepLinearNetwork",
    "DmfError",
    "FileError",
    "FullMatrix",
    "History",
    "LinearMeasurements",
    "MissingPackageError",
    "ObservationError",
    "Observations",
    "RankError",
    "RankPath",
    "RankStep",
    "RankOneMeasurements",
    "Recovery",
    "SampledEntries",
    "ShapeError",
    "Status",
    "SubsampledTransform",
    "WeightedEntries",
    "alternating_minimization",
    "calibrate",
    "complete",
    "continuation",
    "factorize",
    "follow_gradient_flow",
    "gradient_descent",
    "largest_curvature",
    "load",
    "new_columns",
    "new_rows",
    "orthogonal_network",
    "prediction_interval",
    "rank_path",
    "refine",
    "sense",
    "spectral_network",
    "theory",
    "variational_bayes",
]
