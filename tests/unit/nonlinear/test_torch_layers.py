"""The torch.nn.Module: the same numbers and gradients as the adapters of dmf."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.nonlinear import SGD, LowRankAdapter, Network, Samples, deep_lora_factors, lora_factors, train

from helpers import examples, seeds

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'dmf[torch]'")

from dmf.nonlinear.torch_layers import TorchAdapter  # noqa: E402

torch.set_num_threads(1)  # the arrays are small, and the threads of many tests would wait for each other


def linear(seed, d_out=4, d_in=6, bias=True):
    rng = np.random.default_rng(seed)
    layer = torch.nn.Linear(d_in, d_out, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape))))
    return layer


@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    rank=st.integers(1, 4),
    inner=st.integers(1, 3),
    outer_rate=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_outputs_and_gradients_equal_ours(seed, shape, rank, inner, outer_rate):
    """To 1e-6 relative (to rounding, in fact): of every trained factor and of the inputs, by automatic differentiation."""
    rng = np.random.default_rng(seed)
    d_out, d_in = shape
    shapes = [(rank, d_in), *[(rank, rank)] * inner, (d_out, rank)]
    factors = tuple(rng.standard_normal(size) for size in shapes)
    layer = LowRankAdapter(rng.standard_normal(shape), rng.standard_normal(d_out), factors, outer_rate)
    module = TorchAdapter(layer)
    inputs, gradient = rng.standard_normal((5, d_in)), rng.standard_normal((5, d_out))
    expected, cache = layer.forward(inputs)
    at = torch.tensor(inputs, requires_grad=True)
    outputs = module(at)
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=0, atol=1e-12 * scale)
    outputs.backward(torch.from_numpy(gradient))
    below, gradients = layer.backward(cache, gradient)
    trained = [p for p in module.parameters() if p.requires_grad]
    assert len(trained) == len(gradients) == len(factors) - 2 * (outer_rate == 0)
    for theirs, ours in zip([at, *trained], [below, *gradients], strict=True):
        np.testing.assert_allclose(theirs.grad.numpy(), ours, rtol=0, atol=1e-6 * max(1e-3, np.abs(ours).max()))
    merged = module.merge()
    np.testing.assert_allclose(merged(at).detach().numpy(), expected, rtol=0, atol=1e-11 * scale)
    again = module.to_layer()
    assert again.outer_rate == layer.outer_rate
    for ours, back in zip(
        (layer.weight, layer.bias, *layer.factors), (again.weight, again.bias, *again.factors), strict=True
    ):
        np.testing.assert_array_equal(ours, back)
    with torch.no_grad():
        for tensor in (module.weight, module.bias, *module.factors):
            tensor.add_(1)
    np.testing.assert_array_equal(layer.forward(inputs)[0], expected)  # nothing is shared with the arrays


@given(seed=seeds, outer_rate=st.sampled_from([0.0, 0.01, 1.0]))
@examples(6)
def test_training_follows_ours_with_the_groups_of_the_outer_rate(seed, outer_rate):
    """PyTorch's own descent with `parameter_groups` ends where ours does, gamma included."""
    rng = np.random.default_rng(seed)
    gradient = rng.standard_normal((4, 6))
    layer = LowRankAdapter(
        rng.standard_normal((4, 6)), np.zeros(4), deep_lora_factors(gradient, 2, scale=0.7), outer_rate
    )
    samples = Samples(rng.standard_normal((8, 6)), rng.integers(0, 4, 8))
    ours = train(Network([layer]), samples, SGD(0.1, 0.9), iterations=20).network.layers[0]
    module = TorchAdapter(layer)
    optimizer = torch.optim.SGD(module.parameter_groups(0.1), momentum=0.9)
    inputs, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.targets)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    for mine, theirs in zip(ours.factors, module.to_layer().factors, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9 * (1 + np.abs(mine).max()))


@pytest.mark.parametrize("bias", [True, False])
def test_lora_of_a_linear_layer_starts_as_the_layer(bias):
    plain = linear(0, bias=bias)
    module = TorchAdapter.lora(plain, 3, scale=0.5, seed=4)
    inputs = torch.randn(7, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(module(inputs), plain(inputs), rtol=0, atol=1e-14)
    for mine, theirs in zip(
        lora_factors(plain.weight.detach().numpy(), 3, scale=0.5, seed=4), module.to_layer().factors, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert len(module.parameter_groups(0.1)) == 1
    assert (module.bias is None) == (module.merge().bias is None) == (not bias)


def test_deep_lora_of_a_linear_layer_starts_along_descent():
    """From the gradient that backward() leaves at the weight; the factors are those of dmf, up to signs of pairs of vectors."""
    plain = linear(1)
    inputs = torch.randn(7, 6, dtype=torch.float64)
    plain(inputs).square().sum().backward()
    gradient = plain.weight.grad.numpy()
    module = TorchAdapter.deep_lora(plain, 2, scale=0.3)
    expected = LowRankAdapter(
        plain.weight.detach().numpy(), plain.bias.detach().numpy(), deep_lora_factors(gradient, 2, scale=0.3)
    )
    np.testing.assert_allclose(module.to_layer().merged().weight, expected.merged().weight, rtol=0, atol=1e-12)
    given_gradient = TorchAdapter.deep_lora(linear(1), 2, plain.weight.grad, scale=0.3)
    np.testing.assert_array_equal(given_gradient.to_layer().merged().weight, module.to_layer().merged().weight)
    before = plain.weight.detach().clone()
    with torch.no_grad():
        module.factors[1].add_(1)
    torch.testing.assert_close(plain.weight.detach(), before, rtol=0, atol=0)  # nothing is shared with the layer


def test_it_stands_in_a_model_and_its_state_is_saved(tmp_path):
    """In place of a linear layer; the state dict holds frozen and trained arrays."""
    model = torch.nn.Sequential(linear(2), torch.nn.ReLU(), linear(3, 3, 4))
    model[0] = TorchAdapter.lora(model[0], 2)
    with torch.no_grad():
        model[0].factors[1].fill_(0.5)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = torch.nn.Sequential(TorchAdapter.lora(linear(7), 2), torch.nn.ReLU(), linear(8, 3, 4))
    other.load_state_dict(torch.load(tmp_path / "model.pt"))
    inputs = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(model(inputs), other(inputs), rtol=0, atol=0)
    assert not any(name.endswith(("weight", "bias")) for name, _ in model[0].named_parameters())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TorchAdapter.lora(linear(0), 5), dmf.errors.RankError, "rank=5"),
        (lambda: TorchAdapter.lora(torch.nn.ReLU(), 1), dmf.errors.ArgumentError, "ReLU"),
        (lambda: TorchAdapter.lora(linear(0).half(), 1), dmf.errors.DTypeError, "float16"),
        (lambda: TorchAdapter.deep_lora(linear(0), 1), dmf.errors.ArgumentError, "backward()"),
        (lambda: TorchAdapter.deep_lora(linear(0), 1, torch.ones(3, 3)), dmf.errors.ShapeError, "gradient has shape (3, 3)"),
        (
            lambda: TorchAdapter.deep_lora(linear(0), 2, torch.ones(4, 6, dtype=torch.float64), outer_rate=-1),
            dmf.errors.ArgumentError, "outer_rate=-1",
        ),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
