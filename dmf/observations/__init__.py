"""What is measured: full matrices, sampled entries, general linear measurements."""

from dmf.observations.base import Observations
from dmf.observations.entries import SampledEntries
from dmf.observations.full import FullMatrix
from dmf.observations.linear import LinearMeasurements

__all__ = ["FullMatrix", "LinearMeasurements", "Observations", "SampledEntries"]
