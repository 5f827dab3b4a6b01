"""Deep linear networks: weights, gradients, starts."""

from dmf.models.deep_linear import DeepLinearNetwork
from dmf.models.initialize import balanced_network, orthogonal_network, spectral_network

__all__ = ["DeepLinearNetwork", "balanced_network", "orthogonal_network", "spectral_network"]
