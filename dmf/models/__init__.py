"""Deep linear networks: weights, gradients, starts. Oblique projections."""

from dmf.models.deep_linear import DeepLinearNetwork
from dmf.models.initialize import balanced_network, orthogonal_network, spectral_network
from dmf.models.projections import ObliqueProjection, oblique_projection

__all__ = [
    "DeepLinearNetwork",
    "ObliqueProjection",
    "balanced_network",
    "oblique_projection",
    "orthogonal_network",
    "spectral_network",
]
