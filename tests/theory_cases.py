"""Random problems inside the assumptions of the theorems, and the tolerances to which their identities must hold."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

import dmf
from dmf.theory import stable_step_size

TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
alphas = st.one_of(st.just(1.0), st.floats(0.3, 5))
decays = st.one_of(st.just(0.0), st.floats(1e-3, 0.1))
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """A target of exact rank, a start, and options of gradient descent in the stable range."""

    target: np.ndarray
    network: dmf.DeepLinearNetwork
    rank: int
    options: dict

    @property
    def tolerance(self):
        return TOLERANCE[str(self.target.dtype)]

    def run(self, iterations, record_every=1, callback=None, **changes):
        """Gradient descent of the wide network itself."""
        options = {**self.options, **changes}
        return dmf.gradient_descent(
            dmf.FullMatrix(self.target),
            self.network,
            iterations=iterations,
            record_every=record_every,
            callback=callback,
            **options,
        )

    def iterates(self, iterations, record_every=1):
        """Pairs (iteration, network) of that run."""
        found = []

        def keep(snapshot):
            found.append((snapshot.iteration, snapshot.network))

        self.run(iterations, record_every, keep)
        return found


def low_rank(rng, d1, d2, values):
    """Matrix (d1, d2) with the given singular values and random singular vectors."""
    u = np.linalg.qr(rng.standard_normal((d1, len(values))))[0]
    v = np.linalg.qr(rng.standard_normal((d2, len(values))))[0]
    return (u * values) @ v.T


def orthogonal_start(rng, sizes, scales, dtype="float64"):
    """Network with semi-orthogonal layers of sizes (d2, w_1, ..., d1), each times its scale."""
    layers = []
    for (columns, rows), scale in zip(pairwise(sizes), scales, strict=True):
        q = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))[0]
        layers.append((scale * (q if rows >= columns else q.T)).astype(dtype))
    return dmf.DeepLinearNetwork(layers)


def case(seed, sizes, values, relative_scale=0.4, alpha=1.0, decay=0.0, speed=0.3, reduction="sum", dtype="float64"):
    """A case with all layers at ``relative_scale * s_1^(1/L)`` and the step ``speed`` times the largest stable one."""
    rng, depth = np.random.default_rng(seed), len(sizes) - 1
    values = np.sort(np.asarray(values, float))[::-1]
    measurements = sizes[0] * sizes[-1] if reduction == "mean" else 1
    step = speed * measurements * stable_step_size(values, depth, alpha)
    options = {
        "step_size": float(step),
        "outer_scale": alpha,
        "weight_decay": decay / measurements,
        "reduction": reduction,
    }
    scale = relative_scale * values[0] ** (1 / depth)
    target = low_rank(rng, sizes[-1], sizes[0], values).astype(dtype)
    return Case(target, orthogonal_start(rng, sizes, [scale] * depth, dtype), len(values), options)


@st.composite
def cases(draw, square=False, dtypes=("float64", "float32"), depths=(2, 5)):
    """Cases with sizes that are constant, that of the usual width max(d1, d2), or any valley."""
    depth, rank = draw(st.integers(*depths)), draw(st.integers(1, 3))
    size = st.integers(2 * rank + 1, 2 * rank + 7)
    kind = "square" if square else draw(st.sampled_from(["square", "usual", "valley"]))
    if kind == "square":
        sizes = [draw(size)] * (depth + 1)
    elif kind == "usual":
        d1, d2 = draw(size), draw(size)
        sizes = [d2, *[max(d1, d2)] * (depth - 1), d1]
    else:
        bottom = draw(st.integers(0, depth))
        down = sorted(draw(st.lists(size, min_size=bottom, max_size=bottom)), reverse=True)
        up = sorted(draw(st.lists(size, min_size=depth - bottom, max_size=depth - bottom)))
        sizes = [*down, min([*down, *up]), *up]
    values = draw(st.lists(st.floats(0.2, 3), min_size=rank, max_size=rank))
    return case(
        draw(seeds),
        sizes,
        values,
        draw(st.floats(0.1, 1)),
        draw(alphas),
        draw(decays),
        draw(st.floats(0.05, 0.7)),
        draw(st.sampled_from(["sum", "mean"])),
        draw(st.sampled_from(dtypes)),
    )
