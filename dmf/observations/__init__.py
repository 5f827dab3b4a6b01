"""What is measured: full matrices, sampled entries, rank-one and general linear measurements."""

from dmf.observations.base import Observations
from dmf.observations.entries import SampledEntries
from dmf.observations.full import FullMatrix
from dmf.observations.linear import LinearMeasurements
from dmf.observations.rank_one import RankOneMeasurements
from dmf.observations.transforms import SubsampledTransform
from dmf.observations.weighted import WeightedEntries

__all__ = [
    "FullMatrix",
    "LinearMeasurements",
    "Observations",
    "RankOneMeasurements",
    "SampledEntries",
    "SubsampledTransform",
    "WeightedEntries",
]
