"""Deep linear networks: weights, gradients, starts."""

from dmf.networks.deep_linear import DeepLinearNetwork
from dmf.networks.initialize import orthogonal_network, spectral_network

__all__ = ["DeepLinearNetwork", "orthogonal_network", "spectral_network"]
