"""Networks and samples that the suites of dmf.nonlinear share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dmf.arrays.backend import from_host, namespace
from dmf.nonlinear import Network, Samples, perceptron, with_block


def samples(seed, count=12, inputs=6, outputs=3, loss="cross-entropy", dtype=np.float64, move=np.asarray):
    rng = np.random.default_rng([seed, 1])
    x = rng.standard_normal((count, inputs)).astype(dtype)
    targets = (
        rng.integers(0, outputs, count)
        if loss == "cross-entropy"
        else rng.standard_normal((count, outputs)).astype(dtype)
    )
    return Samples(move(x), move(targets))


def biased(network, seed):
    """The network with random biases, so that they take part."""
    rng = np.random.default_rng([seed, 2])
    arrays = [
        array
        if array.ndim > 1
        else namespace(array).astype(from_host(0.3 * rng.standard_normal(array.shape), array), array.dtype)
        for array in network.parameters
    ]
    return Network(network.with_parameters(arrays).layers)


@st.composite
def networks(draw, outer_scale=1.0, activations=("relu", "tanh", "gelu", "silu")):
    """A perceptron with 1 to 4 weights, perhaps with biases and a block of any depth and width; float64 on NumPy."""
    hidden = draw(st.lists(st.integers(1, 7), max_size=3))
    seed = draw(st.integers(0, 2**32 - 1))
    network = perceptron((6, *hidden, 3), draw(st.sampled_from(activations)), biases=draw(st.booleans()), seed=seed)
    if hidden and draw(st.booleans()):
        width = draw(st.one_of(st.none(), st.integers(1, 8)))
        network = with_block(
            network,
            draw(st.integers(1, 4)),
            scale=draw(st.floats(0.3, 1.2)),
            width=width,
            outer_scale=outer_scale,
            seed=seed,
        )
    return biased(network, seed)
