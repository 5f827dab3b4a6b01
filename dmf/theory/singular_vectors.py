"""The gradient flow of a balanced deep linear network, as the motion of its singular vectors and values.

The product W = U diag(s) V^T of balanced layers (``W_{l+1}^T W_{l+1} = W_l W_l^T``) follows a flow of its own, whatever was
observed (Arora et al.): with G the gradient of the loss at W,

    W' = -sum_{j=1..L} (W W^T)^((L-j)/L) G (W^T W)^((j-1)/L).

In the singular bases, with H = U^T G V and w_i = s_i^(1/L), the singular value of each layer, this is

    w_i' = -H_ii w_i^(L-1),
    U' = U Omega_U - (I - U U^T) G V diag(w^(L-2)),      V' = V Omega_V - (I - V V^T) G^T U diag(w^(L-2)),
    (Omega_U)_ik = -(H_ik s_k + H_ki s_i) / (w_k^2 - w_i^2),   (Omega_V)_ik = -(H_ik s_i + H_ki s_k) / (w_k^2 - w_i^2):

frames turn by skew matrices, as in flows of weights on the orthogonal group, and no product of L layers appears, so depth costs
nothing and no gradient vanishes or explodes with it. Frames are integrated in Cayley coordinates, U = cay(X) U_0 with X skew,
where ``U' = A U`` reads ``X' = (I - X/2) A (I + X/2)``: any integrator of ordinary equations then keeps them orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dmf.arrays.backend import Array, as_array, from_host, to_host
from dmf.arrays.checks import check_kind, check_option
from dmf.arrays.linalg import factored_svd
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.models import DeepLinearNetwork
from dmf.models.initialize import balanced_network
from dmf.observations import FullMatrix, Observations
from dmf.theory.conservation import balancedness

_BALANCED = 1e-10  # largest imbalance of layers, relative to the square of their largest singular value
_DISTINCT = 1e-8  # least gap between singular values, relative to the largest
_VANISHED = 1e-12  # size of a singular value, relative to the largest at the start, at which its vectors are lost
_TURNED = 0.5  # Frobenius norm of Cayley coordinates at which they start again from the frame reached


@dataclass(frozen=True, eq=False)
class SingularPath:
    """Singular vectors and values of the product along the flow; n records of k components.

    Attributes
    ----------
    time : float64 array, shape (n,)
        eta times the iteration of small-step descent on the loss "sum".
    u : float64 array, shape (n, d1, k)
        Left singular vectors; each follows one component, whatever the order of the values becomes.
    s : float64 array, shape (n, k)
        Singular values.
    vt : float64 array, shape (n, k, d2)
        Right singular vectors.
    depth : int
        L.
    """

    time: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray
    depth: int

    def __len__(self) -> int:
        return len(self.time)

    @property
    def rotation(self) -> np.ndarray:
        """Angles, in radians, of left and right singular vectors with those of the first record, float64 array (n, 2, k)."""
        chords = np.linalg.norm(self.u - self.u[0], axis=1), np.linalg.norm(self.vt - self.vt[0], axis=2)
        return 2 * np.arcsin(np.minimum(np.stack(chords, axis=1) / 2, 1.0))  # exact for small angles, unlike a cosine

    def product(self, index: int) -> np.ndarray:
        """End-to-end matrix at one record, float64 array (d1, d2)."""
        return (self.u[index] * self.s[index]) @ self.vt[index]

    def network(self, index: int) -> DeepLinearNetwork:
        """A balanced network of this product; that of the flow itself, up to rotations between the layers."""
        return balanced_network(self.u[index], self.s[index], self.vt[index], self.depth)


def singular_flow(
    data: Array | Observations,
    start: DeepLinearNetwork,
    times: Sequence[float] | np.ndarray,
    tolerance: float = 1e-10,
) -> SingularPath:
    """Gradient flow of a balanced network of any depth, by the motion of its singular vectors and values.

    The limit of `dmf.gradient_descent` with the loss "sum" and one rate for all layers, at the time eta times iteration.

    Parameters
    ----------
    data : array, shape (d1, d2), or Observations of dtype float64
        The matrix to be learned, or what is known of it.
    start : DeepLinearNetwork
        Of depth L >= 2, with balanced layers, and a product of k distinct singular values above zero, k its least width: such
        as ``path.network(index)`` of a path. Components of one size, as of `dmf.spectral_network`, have no frames of their own.
    times : sequence of n floats, >= 0, ascending
        Times to record. The path begins at time 0.
    tolerance : float, > 0
        Relative error of a step.

    Returns
    -------
    SingularPath
        Frames are orthogonal to rounding at every record. Costs O(d1^3 + d2^3) for an evaluation of the flow.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If an argument is out of range, the start is not as above, or singular values meet on the way, where a singular vector
        ceases to be a smooth function of time.

    References
    ----------
    .. [1] Arora, Cohen, Hazan, ICML 2018 (arXiv 1802.06509), theorem 1 (the flow of the product); Arora, Cohen, Hu, Luo, NeurIPS
       2019 (arXiv 1905.13655), theorem 3 and lemma 2 (of singular values and vectors).
    .. [2] Choromanski et al., NeurIPS 2020 (arXiv 2006.11421) (flows on the orthogonal group do not vanish or explode).
    .. [3] Hairer, Lubich, Wanner, Geometric Numerical Integration, section IV.8 (Cayley coordinates).
    """
    from scipy.integrate import DOP853  # takes half a second to import

    observations = data if isinstance(data, Observations) else FullMatrix(as_array(data, "data"))
    u, roots, vt = _checked_start(start, observations)
    times = np.asarray(times, float)
    if (
        times.ndim != 1
        or not times.size
        or not np.all(np.isfinite(times))
        or np.any(np.diff(times) < 0)
        or times[0] < 0
    ):
        raise ArgumentError(
            f"times={times!r}, but they are at least one finite number of at least 0, in ascending order.",
            argument="times",
            value=times,
            limit=0,
        )
    tolerance = float(check_option("tolerance", tolerance, least=1e-13, strictly=True))
    frames, depth, k = (u, vt.T), start.depth, roots.size
    records: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    now, step, least = 0.0, None, float(_VANISHED ** (1 / depth) * roots.max())
    for time in times:
        while now < time:
            slope = _in_coordinates(_slope(observations, depth), frames)
            first: dict[str, float] = {} if step is None else {"first_step": min(step, time - now)}
            initial = np.concatenate([roots, np.zeros(sum(f.shape[0] ** 2 for f in frames))])
            solver = DOP853(slope, now, initial, time, rtol=tolerance, atol=tolerance * float(roots.min()), **first)
            lost, moving = False, True
            while moving:
                solver.step()
                turned, lost = np.linalg.norm(solver.y[k:]), not bool(solver.y[:k].min() > least)
                moving = bool(solver.status == "running" and turned < _TURNED and not lost)
            if solver.status == "failed" or lost:
                raise ArgumentError(
                    f"the flow cannot be followed beyond the time {solver.t:.6g}: singular values {roots**depth} come together "
                    "there, or vanish. Pass earlier times, or a start of fewer components.",
                    argument="times",
                    value=float(time),
                    limit=float(solver.t),
                )
            now, step = solver.t, solver.step_size if solver.t < time else step
            roots, *coordinates = _separated(solver.y, frames)
            frames = _cayley(coordinates[0], frames[0]), _cayley(coordinates[1], frames[1])
        records.append((frames[0], roots**depth, frames[1].T))
    u, s, vt = (np.stack(parts) for parts in zip(*records, strict=True))
    return SingularPath(times, u, s, vt, depth)


def _checked_start(start: DeepLinearNetwork, observations: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, w = s^(1/L) and V^T of the start."""
    check_kind("start", start, DeepLinearNetwork, "Pass a balanced one, such as path.network(0) of another path.")
    if start.shape != tuple(observations.shape):
        raise ShapeError(
            f"start is of shape {start.shape}, but what is observed is a matrix of shape {tuple(observations.shape)}.",
            argument="start",
            value=start.shape,
            limit=tuple(observations.shape),
        )
    if not str(observations.dtype).endswith("float64"):
        raise DTypeError(
            f"data has dtype {observations.dtype}, but the flow is followed in float64. Convert it.",
            argument="data",
            value=str(observations.dtype),
            limit="float64",
        )
    if start.depth < 2:
        raise ArgumentError(
            f"start has depth {start.depth}, but the flow turns singular vectors of a product of at least 2 layers.",
            argument="start",
            value=start.depth,
            limit=2,
        )
    start = DeepLinearNetwork(to_host(w).astype(float) for w in start.weights)
    u, s, vt = factored_svd(*start.factors())
    roots = s ** (1 / start.depth)
    imbalance = max(float(np.linalg.norm(c, 2)) for c in balancedness(start))
    if imbalance > _BALANCED * max(float(np.linalg.norm(w, 2)) for w in start.weights) ** 2:
        raise ArgumentError(
            f"start has layers with a difference of {imbalance:.2g} between W_(l+1)^T W_(l+1) and W_l W_l^T, but the flow of the "
            "product alone is known for balanced layers. Start from layers that share each singular value equally.",
            argument="start",
            value=imbalance,
            limit=_BALANCED,
        )
    gaps = -np.diff(np.append(s, 0.0))
    if np.any(gaps <= _DISTINCT * s[0]):
        raise ArgumentError(
            f"start has singular values {s}, but they must be distinct and above zero, by {_DISTINCT:g} of the largest: others "
            "have no singular vectors of their own. Start from other sizes, or a smaller width.",
            argument="start",
            value=float(gaps.min()),
            limit=_DISTINCT * float(s[0]),
        )
    return u, roots, vt


def _slope(observations: Observations, depth: int) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The flow: of U, w and V to w' and the skew A, B with U' = A U and V' = B V."""

    def slope(u: np.ndarray, roots: np.ndarray, v: np.ndarray):
        s = roots**depth
        left, right = (from_host(np.ascontiguousarray(f), observations.values) for f in (u * s, v.T))
        _, gradient_v, gradient_u = observations.evaluate(left, right)
        gv, gu = to_host(gradient_v), to_host(gradient_u).T / s  # G V and G^T U
        h = u.T @ gv
        power = roots ** (depth - 2)
        gap = roots[None, :] ** 2 - roots[:, None] ** 2
        np.fill_diagonal(gap, 1.0)
        turns = [-(h * s[None, :] + h.T * s[:, None]) / gap, -(h * s[:, None] + h.T * s[None, :]) / gap]
        skew = []
        for frame, turn, push in ((u, turns[0], gv * power), (v, turns[1], gu * power)):
            np.fill_diagonal(turn, 0.0)
            outside = frame @ (frame.T @ push) - push
            mixed = outside @ frame.T
            skew.append(frame @ turn @ frame.T + mixed - mixed.T)
        return -np.diagonal(h) * roots ** (depth - 1), skew[0], skew[1]

    return slope


def _in_coordinates(
    slope: Callable, frames: tuple[np.ndarray, np.ndarray]
) -> Callable[[float, np.ndarray], np.ndarray]:
    """The flow as an ordinary equation of w and of the Cayley coordinates of both frames about `frames`."""

    def ordinary(_time: float, y: np.ndarray) -> np.ndarray:
        roots, *coordinates = _separated(y, frames)
        turned = [_cayley(x, f) for x, f in zip(coordinates, frames, strict=True)]
        roots_slope, *skew = slope(turned[0], roots, turned[1])
        moved = [a - (x @ a - a @ x) / 2 - x @ a @ x / 4 for a, x in zip(skew, coordinates, strict=True)]
        return np.concatenate([roots_slope, *(m.ravel() for m in moved)])

    return ordinary


def _separated(y: np.ndarray, frames: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots w and both skew matrices of Cayley coordinates."""
    (d1, k), d2 = frames[0].shape, frames[1].shape[0]
    first, second = y[k : k + d1 * d1].reshape(d1, d1), y[k + d1 * d1 :].reshape(d2, d2)
    return y[:k], (first - first.T) / 2, (second - second.T) / 2


def _cayley(skew: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """``(I - X/2)^-1 (I + X/2) frame``."""
    identity = np.eye(len(skew))
    return np.linalg.solve(identity - skew / 2, frame + skew @ frame / 2)
