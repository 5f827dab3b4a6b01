"""What is measured: full matrices, sampled entries, rank-one and general linear measurements."""

from dmf.observations.base import Observations
from dmf.observations.distributed import DistributedEntries
from dmf.observations.entries import Entries
from dmf.observations.full import FullMatrix
from dmf.observations.linear import LinearMeasurements
from dmf.observations.rank_one import RankOneMeasurements
from dmf.observations.sampled import SampledEntries
from dmf.observations.transforms import SubsampledTransform

__all__ = [
    "DistributedEntries",
    "Entries",
    "FullMatrix",
    "LinearMeasurements",
    "Observations",
    "RankOneMeasurements",
    "SampledEntries",
    "SubsampledTransform",
]
