"""From data to a recovery: which solver, which rank, when to stop."""

from dmf.completion.calls import complete, sense
from dmf.completion.distances import Distances, complete_distances
from dmf.completion.factorization import factorize
from dmf.completion.ranks import RankPath, RankStep, rank_path
from dmf.completion.together import Together, complete_together

__all__ = [
    "Distances",
    "RankPath",
    "RankStep",
    "Together",
    "complete",
    "complete_distances",
    "complete_together",
    "factorize",
    "rank_path",
    "sense",
]
