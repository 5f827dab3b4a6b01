"""Nonlinear networks with a deep linear block, trained and compressed; forward and backward passes by hand."""

from dmf.nonlinear.adapters import LowRankAdapter, deep_lora, deep_lora_factors, lora, lora_factors
from dmf.nonlinear.autoencoders import BiorthogonalAutoencoder, biorthogonal_autoencoder
from dmf.nonlinear.compression import block_gradient, compress, spectral_start, with_block
from dmf.nonlinear.convolutions import CompressedConvolution, compress_convolution
from dmf.nonlinear.evidence import UpdateDiagnostics
from dmf.nonlinear.layers import Activation, DeepLinearBlock, Dense
from dmf.nonlinear.losses import softmax_cross_entropy, squared_loss
from dmf.nonlinear.network import Network, perceptron
from dmf.nonlinear.samples import Samples
from dmf.nonlinear.training import Evaluation, accuracy, train
from dmf.solvers.optimizers import SGD, Adam

__all__ = [
    "Activation",
    "Adam",
    "BiorthogonalAutoencoder",
    "CompressedConvolution",
    "DeepLinearBlock",
    "Dense",
    "Evaluation",
    "LowRankAdapter",
    "Network",
    "SGD",
    "Samples",
    "UpdateDiagnostics",
    "accuracy",
    "biorthogonal_autoencoder",
    "block_gradient",
    "compress",
    "compress_convolution",
    "deep_lora",
    "deep_lora_factors",
    "lora",
    "lora_factors",
    "perceptron",
    "softmax_cross_entropy",
    "spectral_start",
    "squared_loss",
    "train",
    "with_block",
]
