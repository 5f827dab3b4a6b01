"""Models: deep linear networks with their gradients and starts, matrices of low rank, offsets, oblique projections."""

from dmf.models.deep_linear import DeepLinearNetwork
from dmf.models.initialize import balanced_network, orthogonal_network, spectral_network
from dmf.models.low_rank import LowRank
from dmf.models.projections import ObliqueProjection, oblique_projection

__all__ = [
    "DeepLinearNetwork",
    "LowRank",
    "ObliqueProjection",
    "balanced_network",
    "oblique_projection",
    "orthogonal_network",
    "spectral_network",
]
