"""From data to a recovery: which solver, which rank, when to stop."""

from dmf.completion.calls import complete, factorize, sense
from dmf.completion.ranks import RankPath, RankStep, rank_path

__all__ = ["RankPath", "RankStep", "complete", "factorize", "rank_path", "sense"]
