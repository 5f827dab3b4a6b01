"""Nonlinear networks: a chain of layers, its loss and gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, floating, from_host, namespace
from dmf.arrays.checks import check_choice, check_kind, positive_integer, random_generator
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.nonlinear.layers import Activation, Dense, Layer
from dmf.nonlinear.losses import LOSSES
from dmf.nonlinear.samples import Samples, check_labels, checked_inputs
from dmf.observations.checks import check_finite

_GAINS = {
    "relu": 2.0,
    "gelu": 2.0,
    "silu": 2.0,
    "tanh": 1.0,
}  # keep the variance from layer to layer (He et al. 2015, section 2.2)


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of layers, immutable: ``network(inputs)`` gives the outputs, one row for each sample.

    Parameters
    ----------
    layers : iterable of layers
        The first takes the inputs. `Dense`, `DeepLinearBlock`, `Activation`, or anything with the functions of a `Layer`. At
        least one has parameters; all of them of one library, device and dtype.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError
        If something is no layer, sizes do not chain, or libraries or dtypes differ.
    """

    layers: tuple[Layer, ...]

    def __init__(self, layers: Iterable[Layer]) -> None:
        chain = tuple(layers) if isinstance(layers, Iterable) else (layers,)
        strangers = sorted({type(layer).__name__ for layer in chain if not _is_layer(layer)})
        if strangers:
            raise ArgumentError(
                f"layers holds {', '.join(strangers)}, but a layer is a Dense, a DeepLinearBlock, an Activation, or has their "
                "attributes and functions. Wrap weights in Dense; of a Network pass the layers.",
                argument="layers",
                value=strangers,
            )
        sizes = [layer.sizes for layer in chain if layer.sizes is not None]
        if not sizes:
            raise ShapeError(
                "a network without weights has no sizes. Pass at least one layer with weights.", argument="layers"
            )
        for below, above in zip(sizes, sizes[1:], strict=False):
            if above[0] != below[1]:
                raise ShapeError(
                    f"a layer takes {above[0]} numbers, but the one before it gives {below[1]}. Pass the layers from input to "
                    "output.",
                    argument="layers",
                    value=above[0],
                    limit=below[1],
                )
        arrays = [array for layer in chain for array in layer.parameters]
        if not arrays:
            raise ArgumentError(
                "no layer has parameters, so there is nothing to train. Pass at least one that has, such as a Dense.",
                argument="layers",
                value=0,
                limit=1,
            )
        namespace(*arrays)
        dtypes = sorted({str(array.dtype) for array in arrays})
        if len(dtypes) > 1:
            raise DTypeError(
                f"layers have dtypes {', '.join(dtypes)}, but a network has one dtype. Convert them.",
                argument="layers",
                value=dtypes,
            )
        object.__setattr__(self, "layers", chain)

    @property
    def sizes(self) -> tuple[int, int]:
        """(d_in, d_out)."""
        sizes = [layer.sizes for layer in self.layers if layer.sizes is not None]
        return sizes[0][0], sizes[-1][1]

    @property
    def parameters(self) -> tuple[Array, ...]:
        """Parameters of all layers, from input to output."""
        return tuple(array for layer in self.layers for array in layer.parameters)

    @property
    def rates(self) -> tuple[float, ...]:
        """For each of the parameters, its step over the optimiser's."""
        return tuple(rate for layer in self.layers for rate in layer.rates)

    @property
    def n_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(int(np.prod(array.shape)) for array in self.parameters)

    def with_parameters(self, parameters: Sequence[Array]) -> Network:
        """The network with other arrays of the same shapes, unchecked.

        Parameters
        ----------
        parameters : sequence of arrays
            Shaped as `parameters`.
        """
        layers, start = [], 0
        for layer in self.layers:
            end = start + len(layer.parameters)
            layers.append(layer.with_parameters(parameters[start:end]))
            start = end
        new = object.__new__(Network)
        object.__setattr__(new, "layers", tuple(layers))
        return new

    def __call__(self, inputs: Array) -> Array:
        """Outputs for inputs of shape (n, d_in): array (n, d_out).

        Raises
        ------
        ShapeError, DTypeError, BackendError, ObservationError
            If the inputs do not fit the network or are not finite.
        """
        inputs = checked_inputs(inputs)
        self.check_inputs(inputs)
        outputs, _ = self.forward(inputs)
        return outputs

    def forward(self, inputs: Array) -> tuple[Array, list[Any]]:
        """Outputs and the cache of each layer, nothing checked."""
        caches = []
        for layer in self.layers:
            inputs, cache = layer.forward(inputs)
            caches.append(cache)
        return inputs, caches

    def backward(self, caches: Sequence[Any], gradient: Array) -> tuple[Array, ...]:
        """Gradient with respect to each of the parameters, from that with respect to the outputs, which may be overwritten."""
        first = next(k for k, layer in enumerate(self.layers) if layer.parameters)
        found: list[tuple[Array, ...]] = []
        for k in range(len(self.layers) - 1, first - 1, -1):
            gradient, gradients = self.layers[k].backward(caches[k], gradient, to_inputs=k > first)
            found.insert(0, gradients)
        return tuple(array for gradients in found for array in gradients)

    def loss_and_gradients(self, samples: Samples, loss: str = "cross-entropy") -> tuple[Array, tuple[Array, ...]]:
        """Loss, averaged over samples that `check_samples` accepts, and its gradient with respect to each of the parameters.

        Parameters
        ----------
        samples : Samples
        loss : {"cross-entropy", "squared"}

        Returns
        -------
        loss : array, shape ()
        gradients : tuple of arrays
            Shaped as `parameters`.
        """
        outputs, caches = self.forward(samples.inputs)
        value, gradient = LOSSES[loss](outputs, samples.targets)
        return value, self.backward(caches, gradient)

    def check_inputs(self, inputs: Array) -> None:
        """Raise unless inputs of `Samples` fit the network."""
        arrays = self.parameters
        namespace(inputs, *arrays)
        if inputs.shape[1] != self.sizes[0]:
            raise ShapeError(
                f"inputs have shape {tuple(inputs.shape)}, but the network takes {self.sizes[0]} numbers for each sample. Pass "
                f"an array (samples, {self.sizes[0]}).",
                argument="inputs",
                value=tuple(inputs.shape),
                limit=self.sizes[0],
            )
        if inputs.dtype != arrays[0].dtype:
            raise DTypeError(
                f"inputs have dtype {inputs.dtype} and the network {arrays[0].dtype}, but one call computes in one dtype. "
                "Convert one of them; a network takes its dtype from perceptron(like=...).",
                argument="inputs",
                value=str(inputs.dtype),
                limit=str(arrays[0].dtype),
            )

    def check_samples(self, samples: Samples, loss: str) -> None:
        """Raise unless the samples fit the network and the loss."""
        check_kind("samples", samples, Samples, "Pass Samples(inputs, targets).")
        check_choice("loss", loss, LOSSES)
        self.check_inputs(samples.inputs)
        targets, outputs = samples.targets, self.sizes[1]
        if loss == "cross-entropy":
            check_labels(targets, outputs)
        elif tuple(targets.shape[1:]) != (outputs,):
            raise ShapeError(
                f"targets have shape {tuple(targets.shape)}, but the squared loss compares them with {outputs} outputs. Pass an "
                f"array ({len(samples)}, {outputs}), of labels their one-hot vectors.",
                argument="targets",
                value=tuple(targets.shape),
                limit=(len(samples), outputs),
            )

    def merged(self) -> Network:
        """The same function with one plain weight in place of each block or adapter, for inference."""
        return Network(layer.merged() for layer in self.layers)

    def __repr__(self) -> str:
        parts = [
            layer.name if isinstance(layer, Activation) else f"{type(layer).__name__} {layer.sizes}"
            for layer in self.layers
        ]
        return f"Network({', '.join(parts)})"


def perceptron(
    sizes: Sequence[int], activation: str = "relu", *, biases: bool = True, seed: int = 0, like: Array | None = None
) -> Network:
    """A multilayer perceptron with random weights: `Dense` layers with activations between.

    Parameters
    ----------
    sizes : sequence of int, >= 1
        Numbers of inputs, of units of each hidden layer, of outputs: at least two.
    activation : {"relu", "tanh", "gelu", "silu"}
    biases : bool
        Give each layer one.
    seed : int
    like : array, optional
        The weights get its library, dtype and device (of integers, float64); NumPy float64 unless given.

    Returns
    -------
    Network
        Weights normal with variance 2 / d_in before a ReLU, a GELU or a SiLU, 1 / d_in otherwise; biases 0.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If an argument is out of range, or `like` is of no dtype that dmf computes in.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun, ICCV 2015 (arXiv 1502.01852), section 2.2.
    """
    bend = Activation(activation)
    if not isinstance(sizes, (tuple, list)) or len(sizes) < 2:
        raise ShapeError(
            f"sizes={sizes!r}, but a network has at least inputs and outputs. Pass two numbers or more.",
            argument="sizes",
            value=sizes,
            limit=2,
        )
    sizes = [positive_integer(size, "sizes") for size in sizes]
    generator = random_generator(seed)
    layers: list[Layer] = []
    for below, above in zip(sizes, sizes[1:], strict=False):
        gain = _GAINS[activation] if len(layers) < 2 * (len(sizes) - 2) else 1.0
        weight = generator.standard_normal((above, below)) * (gain / below) ** 0.5
        layers += [Dense(moved(weight, like), moved(np.zeros(above), like) if biases else None), bend]
    return Network(layers[:-1])


def check_network(network: Any) -> None:
    """Raise ArgumentError unless it is a `Network`."""
    check_kind("network", network, Network, "Pass one of perceptron(sizes), or Network(layers).")


def _is_layer(layer: Any) -> bool:
    return hasattr(layer, "with_parameters") and not isinstance(layer, (type, Network))


def moved(host: np.ndarray, like: Array | None) -> Array:
    """A host array in the library, dtype (float64 for integers) and device of `like`; itself without."""
    if like is None:
        return host
    dtype = floating(
        namespace(like).reshape(like, (-1,))[:1], "like"
    ).dtype  # of one number, as `like` may be a data set
    return namespace(like).astype(from_host(host, like), dtype)


def finite_gradients(network: Network, samples: Samples, loss: str) -> tuple[Array, ...]:
    """Gradient of the loss with respect to each of the parameters, for what starts from its singular vectors.

    Raises
    ------
    ObservationError
        If numbers overflow on the way, beside what `Network.check_samples` raises.
    """
    check_network(network)
    network.check_samples(samples, loss)
    with np.errstate(over="ignore", invalid="ignore"):
        _, gradients = network.loss_and_gradients(samples, loss)
    for gradient in gradients:
        check_finite(gradient, "the gradient", "Start from smaller weights, or scale the data down.")
    return gradients
