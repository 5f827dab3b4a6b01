"""Deep linear blocks and low-rank adapters as modules of PyTorch, each in place of a torch.nn.Linear. Needs PyTorch.

A block in place of any linear layer, its compressed start, training, and one plain weight again::

    import torch
    from dmf.nonlinear.torch_layers import TorchDeepLinearBlock

    torch.manual_seed(0)
    inputs, labels = torch.randn(64, 20), torch.randint(0, 3, (64,))
    model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.GELU(), torch.nn.Linear(32, 3))
    loss = lambda: torch.nn.functional.cross_entropy(model(inputs), labels)

    model[0] = TorchDeepLinearBlock.orthogonal(model[0], depth=3, scale=0.7)  # the original block: inner width 32
    model[0] = model[0].spectral_start(rank=4, loss=loss, outer_scale=2.0)  # 20 -> 4 -> 4 -> 32
    optimizer = torch.optim.Adam([*model[0].parameter_groups(0.01), {"params": model[2].parameters()}], lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model[0] = model[0].merge()
    print("loss", loss().item(), model)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmf.arrays.backend import is_numpy
from dmf.arrays.checks import check_kind
from dmf.arrays.linalg import chain_product
from dmf.errors import ArgumentError, MissingPackageError, ShapeError
from dmf.models import orthogonal_network
from dmf.nonlinear.adapters import LowRankAdapter, deep_lora_factors, lora_factors
from dmf.nonlinear.compression import spectral_block, truncated_block
from dmf.nonlinear.layers import DeepLinearBlock

try:
    import torch
except ImportError as error:
    raise MissingPackageError(
        "dmf.nonlinear.torch_layers needs PyTorch, which is not installed. Install it with: pip install 'dmf[torch]'. "
        "dmf.nonlinear does the same without it."
    ) from error


class TorchDeepLinearBlock(torch.nn.Module):
    """``outputs = inputs @ (W_L ... W_1)^T + bias`` in PyTorch: the original deep linear block, or a compressed one.

    It stands where a ``torch.nn.Linear`` stood, in any model: it has `in_features`, `out_features`, `weight` and `bias` as well.
    The outer scale is a matter of the optimiser: pass it `parameter_groups`.

    Parameters
    ----------
    layer : DeepLinearBlock
        Weights and bias are copied; of NumPy, or of PyTorch on any device.

    Attributes
    ----------
    factors : torch.nn.ParameterList
        W_1, ..., W_L.
    bias : torch.nn.Parameter or None
        None in place of a linear layer without one.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3 and the experiments with nonlinear networks.
    """

    bias: torch.nn.Parameter | None

    def __init__(self, layer: DeepLinearBlock) -> None:
        super().__init__()
        self.outer_scale = layer.outer_scale
        self.factors = torch.nn.ParameterList(torch.nn.Parameter(_tensor(weight)) for weight in layer.weights)
        self.bias = None if layer.bias is None else torch.nn.Parameter(_tensor(layer.bias))
        self._probe: torch.Tensor | None = None  # stands for the end-to-end matrix while its gradient is taken

    @classmethod
    def orthogonal(
        cls,
        linear: torch.nn.Linear,
        depth: int = 3,
        *,
        scale: float = 1.0,
        width: int | None = None,
        outer_scale: float = 1.0,
        seed: int = 0,
    ) -> TorchDeepLinearBlock:
        """The original block in place of a linear layer, whose bias is kept and whose weight is dropped.

        Parameters
        ----------
        linear : torch.nn.Linear
        depth, scale, width, outer_scale, seed
            See `dmf.nonlinear.with_block`.

        Raises
        ------
        ArgumentError, DTypeError
            If an argument is out of range, or the layer is no ``torch.nn.Linear`` of float32 or float64.
        """
        weight, bias = _weight_and_bias(linear)
        d_out, d_in = weight.shape
        start = orthogonal_network((d_out, d_in), depth, scale, width, seed=seed, like=weight)
        return cls(DeepLinearBlock(start.weights, bias, outer_scale))

    @property
    def in_features(self) -> int:
        """Numbers that it takes."""
        return self.factors[0].shape[1]

    @property
    def out_features(self) -> int:
        """Numbers that it gives."""
        return self.factors[-1].shape[0]

    @property
    def weight(self) -> torch.Tensor:
        """End-to-end matrix ``W_L ... W_1``, shape (out_features, in_features), computed from the factors."""
        return chain_product([*self.factors][::-1]) if self._probe is None else self._probe

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (..., d_out) for inputs (..., d_in)."""
        if self._probe is not None:
            return torch.nn.functional.linear(inputs, self._probe, self.bias)
        *below, last = self.factors
        for factor in below:
            inputs = torch.nn.functional.linear(inputs, factor)
        return torch.nn.functional.linear(inputs, last, self.bias)

    def end_to_end_gradient(self, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Gradient of a loss with respect to `weight`, shape (out_features, in_features).

        No gradient of a parameter changes.

        Parameters
        ----------
        loss : callable
            Without arguments; runs the model that the block stands in, and returns a scalar.

        Raises
        ------
        ArgumentError
            If the loss does not depend on this block.
        """
        self._probe = self.weight.detach().requires_grad_()
        try:
            with torch.enable_grad():
                value = loss()
                (gradient,) = (
                    torch.autograd.grad(value, [self._probe], allow_unused=True) if value.requires_grad else (None,)
                )
        finally:
            self._probe = None
        if gradient is None:
            raise ArgumentError(
                "the loss does not depend on this block. Put the block into the model first, and let loss() run the model.",
                argument="loss",
            )
        return gradient

    def spectral_start(
        self, rank: int, loss: Callable[[], torch.Tensor], *, scale: float = 1.0, outer_scale: float | None = None
    ) -> TorchDeepLinearBlock:
        """A compressed block that starts in the singular subspaces of the gradient with respect to this block's matrix.

        Parameters
        ----------
        rank : int, 1 <= rank <= min(in_features, out_features)
        loss : callable
            As of `end_to_end_gradient`, on the samples over which the gradient is averaged.
        scale, outer_scale
            See `dmf.nonlinear.spectral_start`.

        Raises
        ------
        RankError, ArgumentError, ObservationError
            If an argument is out of range, the loss does not depend on this block, or the gradient overflows.
        """
        gradient = self.end_to_end_gradient(loss)
        return TorchDeepLinearBlock(spectral_block(self._layer(), rank, gradient, scale, outer_scale))

    def compress(self, rank: int, *, outer_scale: float | None = None) -> TorchDeepLinearBlock:
        """The block at the best approximation of its matrix by one of that rank, after training; see `dmf.nonlinear.compress`.

        Parameters
        ----------
        rank : int, 1 <= rank <= min(in_features, out_features)
        outer_scale : float, >= 0, optional
            As before unless given.

        Raises
        ------
        RankError, ArgumentError
            If an argument is out of range.
        """
        return TorchDeepLinearBlock(truncated_block(self._layer(), rank, outer_scale))

    def parameter_groups(self, step_size: float) -> list[dict[str, Any]]:
        """Groups of parameters for an optimiser of ``torch.optim``, with `outer_scale` times the step for W_1 and W_L.

        Parameters
        ----------
        step_size : float, > 0
            Of the factors between, and of the bias.
        """
        inner = [*self.factors[1:-1], *([] if self.bias is None else [self.bias])]
        outer = [self.factors[0], self.factors[-1]][: len(self.factors)]
        return _groups((outer, self.outer_scale * step_size), (inner, step_size))

    def to_layer(self) -> DeepLinearBlock:
        """The same as a layer of dmf, with NumPy arrays: copies."""
        return DeepLinearBlock(tuple(map(_host, self.factors)), _host(self.bias), self.outer_scale)

    def merge(self) -> torch.nn.Linear:
        """A plain linear layer with the weight ``W_L ... W_1``, for inference."""
        return _linear(self.weight, self.bias)

    def _layer(self) -> DeepLinearBlock:
        weights = tuple(factor.detach() for factor in self.factors)
        return DeepLinearBlock(weights, None if self.bias is None else self.bias.detach(), self.outer_scale)

    def extra_repr(self) -> str:
        """Sizes, for the model's printed form."""
        widths = " -> ".join(str(size) for size in (self.in_features, *(factor.shape[0] for factor in self.factors)))
        return f"{widths}, bias={self.bias is not None}"


class TorchAdapter(torch.nn.Module):
    """``outputs = inputs @ (weight + W_k ... W_1)^T + bias`` in PyTorch; weight and bias are frozen.

    In place of a ``torch.nn.Linear``: ``model.head = TorchAdapter.lora(model.head, rank=8)``. The outer rate is a matter of the
    optimiser: pass it `parameter_groups`.

    Parameters
    ----------
    layer : LowRankAdapter
        Weight, bias and factors are copied; of NumPy, or of PyTorch on any device.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, layer: LowRankAdapter) -> None:
        super().__init__()
        self.outer_rate = layer.outer_rate
        self.register_buffer("weight", _tensor(layer.weight))
        self.register_buffer("bias", None if layer.bias is None else _tensor(layer.bias))
        trained = {id(array) for array in layer.parameters}
        self.factors = torch.nn.ParameterList(
            torch.nn.Parameter(_tensor(factor), requires_grad=id(factor) in trained) for factor in layer.factors
        )

    @classmethod
    def lora(cls, linear: torch.nn.Linear, rank: int, *, scale: float = 1.0, seed: int = 0) -> TorchAdapter:
        """Plain LoRA of a linear layer.

        Parameters
        ----------
        linear : torch.nn.Linear
        rank : int, 1 <= rank <= min(in_features, out_features)
        scale : float, > 0
            See `dmf.nonlinear.lora_factors`.
        seed : int

        Raises
        ------
        RankError, ArgumentError, DTypeError
            If an argument is out of range, or the layer is no ``torch.nn.Linear`` of float32 or float64.
        """
        weight, bias = _weight_and_bias(linear)
        return cls(LowRankAdapter(weight, bias, lora_factors(weight, rank, scale=scale, seed=seed)))

    @classmethod
    def deep_lora(
        cls,
        linear: torch.nn.Linear,
        rank: int,
        gradient: torch.Tensor | None = None,
        *,
        depth: int = 3,
        scale: float = 0.1,
        outer_rate: float = 0.01,
    ) -> TorchAdapter:
        """Deep LoRA of a linear layer.

        Parameters
        ----------
        linear : torch.nn.Linear
        rank : int, 1 <= rank <= min(in_features, out_features)
        gradient : tensor, shape (out_features, in_features), optional
            Of the loss with respect to the weight at the first batch; ``linear.weight.grad`` unless given, as
            ``loss.backward()`` leaves it.
        depth, scale, outer_rate
            See `dmf.nonlinear.deep_lora`.

        Raises
        ------
        RankError, ArgumentError, ShapeError, DTypeError
            If an argument is out of range, there is no gradient, or the layer is no ``torch.nn.Linear`` of float32 or float64.
        """
        weight, bias = _weight_and_bias(linear)
        gradient = linear.weight.grad if gradient is None else gradient
        if gradient is None:
            raise ArgumentError(
                "gradient=None and the weight has no gradient, but Deep LoRA starts in its singular vectors. Run "
                "loss.backward() on the first batch, or pass gradient=.",
                argument="gradient",
            )
        if gradient.shape != weight.shape:
            raise ShapeError(
                f"gradient has shape {tuple(gradient.shape)}, but the weight {tuple(weight.shape)}. Pass the gradient of the "
                "loss with respect to the weight.",
                argument="gradient",
                value=tuple(gradient.shape),
                limit=tuple(weight.shape),
            )
        factors = deep_lora_factors(gradient.detach(), rank, depth=depth, scale=scale)
        return cls(LowRankAdapter(weight, bias, factors, outer_rate))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (..., d_out) for inputs (..., d_in)."""
        reached = inputs
        for factor in self.factors:
            reached = torch.nn.functional.linear(reached, factor)
        return torch.nn.functional.linear(inputs, self.weight, self.bias) + reached

    def parameter_groups(self, step_size: float) -> list[dict[str, Any]]:
        """Groups of parameters for an optimiser of ``torch.optim``, with `outer_rate` times the step for the outer factors.

        Parameters
        ----------
        step_size : float, > 0
            Of the factors between; of all of them in plain LoRA.
        """
        outer, inner = [self.factors[0], self.factors[-1]], list(self.factors[1:-1])
        return _groups((outer, self.outer_rate * step_size), (inner, step_size))

    def to_layer(self) -> LowRankAdapter:
        """The same as a layer of dmf, with NumPy arrays: copies."""
        return LowRankAdapter(_host(self.weight), _host(self.bias), tuple(map(_host, self.factors)), self.outer_rate)

    def merge(self) -> torch.nn.Linear:
        """A plain linear layer with the weight ``weight + W_k ... W_1``, for inference."""
        return _linear(self.weight + chain_product([*self.factors][::-1]), self.bias)


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array)) if is_numpy(array) else array.detach().clone()


def _host(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().cpu().numpy().copy()


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    """A layer with copies of these."""
    linear = torch.nn.utils.skip_init(
        torch.nn.Linear, weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


def _groups(*parts: tuple[list[torch.Tensor], float]) -> list[dict[str, Any]]:
    """Groups for an optimiser, without what is empty or stays."""
    return [{"params": params, "lr": rate} for params, rate in parts if params and rate > 0]


def _weight_and_bias(linear: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    check_kind("linear", linear, torch.nn.Linear, "Pass one of the model's layers of torch.nn.Linear.")
    return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
