"""How deep linear networks learn, as code: exact trajectories, invariant subspaces, learning times, what is conserved.

Each of these takes a few lines; ``python -m pydoc dmf.theory`` shows them, and the tests run them.

A problem, a start and a step for what follows::

    import numpy as np
    import dmf
    from dmf.experiments.problems import paper_target, sample_entries
    from dmf.solvers import SGD, Adam, Curvature, Huber, largest_curvature
    from dmf.theory import compressed_start, stable_step_size, two_period_orbit

    target = paper_target(30, rank=2, seed=0)
    seen, unseen = sample_entries(target, 0.6, seed=0)
    start = dmf.spectral_network(seen, rank=4, scale=0.1, exact=True)

    def error(run):
        return float(np.linalg.norm(run.network.product() - target) / np.linalg.norm(target))

A rate for each layer, and a step that falls from iteration to iteration::

    run = dmf.gradient_descent(seen, start, 5.0, iterations=500, rates=[2, 1, 2], schedule=lambda t: 1 / (1 + t / 300))
    print("rates and a schedule", error(run))

Momentum, and Adam on minibatches of the entries::

    print("momentum", error(dmf.gradient_descent(seen, start, SGD(2.0, momentum=0.9), iterations=300)))
    print("Adam", error(dmf.gradient_descent(seen, start, Adam(0.03), iterations=150, batch_size=100, record_every=50)))

Outer factors that stay, or turn slowly: the compressed completion of Yaras et al.::

    wide = dmf.orthogonal_network(target.shape, scale=0.1, seed=0)
    core = compressed_start(seen, wide, rank=2)
    for scale in (0.0, 0.1):
        print("compressed", scale, error(dmf.gradient_descent(seen, core, 5.0, outer_scale=scale, iterations=1_000)))

A loss that forgives outliers, or one of your own: its sum and its derivatives by the predictions::

    class Quartic:
        def evaluate(self, predictions, values):
            residuals = predictions - values
            return np.sum(residuals**4) / 4, residuals**3

    for loss in (Huber(0.5), Quartic()):
        print("loss", dmf.gradient_descent(seen, start, Adam(0.02), iterations=150, loss=loss).history.loss[[0, -1]])

Sharpness along a run, and the edge of stability: a step a little above the largest stable one ends in two values, in turn::

    known, values = dmf.FullMatrix(target), np.linalg.svd(target)[1]
    step = 1.02 * stable_step_size(values[:2], depth=3)
    sharpness = lambda at: {"sharpness": Curvature(known, at.network, reduction="sum").largest("hessian")}
    run = dmf.gradient_descent(
        known, dmf.spectral_network(known, 2, scale=1.0), step, reduction="sum", iterations=1_001, record_every=250,
        callback=sharpness,
    )
    print("sharpness", run.history["sharpness"], "against", 2 / step)
    print("orbit", two_period_orbit(values[0], 3, step), "of the first, now", np.linalg.svd(run.network.product())[1][:2])

Residual layers, two layers that are lambda-balanced, and the gradient flow with weight decay, which both take::

    scaled = dmf.FullMatrix(target / values[0])
    u, s, vt = np.linalg.svd(0.01 * scaled.matrix, full_matrices=False)
    starts = {
        "residual": dmf.orthogonal_network(target.shape, depth=4, scale=0.05, residual=True),
        "balanced": dmf.models.balanced_network(u[:, :2], s[:2], vt[:2], depth=2, balance=0.5),
    }
    for name, first in starts.items():
        path = dmf.solvers.follow_gradient_flow(scaled, first, reduction="sum", weight_decay=1e-3, iterations=200)
        print("flow", name, path.history["time"][-1], path.history.loss[-1])

Complex matrices, known whole or by inner products ``<A_i, X>``: transposes are then conjugate ones::

    phases = dmf.FullMatrix(target * np.exp(1j * np.arange(30.0)))
    unitary = dmf.orthogonal_network(phases.shape, scale=0.1, width=4, like=phases.values)
    rotated = dmf.gradient_descent(phases, unitary, 5.0, outer_scale=2, iterations=500)
    print("complex loss", rotated.history.loss[-1], "dtype", rotated.network.dtype)

The tangent kernel on a few measurements, as a matrix::

    few = dmf.SampledEntries(seen.rows[:5], seen.cols[:5], seen.values[:5], seen.shape)
    kernel = np.stack([Curvature(few, start).ntk(unit) for unit in np.eye(5)])
    print("tangent kernel", np.linalg.eigvalsh(kernel), "a stable step", 2 / largest_curvature(seen, run.network))
"""

from dmf.theory.comparison import Comparison, compare
from dmf.theory.compression import CompressedTrajectory, ExactCompression, exact_compression
from dmf.theory.conservation import BalanceDrift, balancedness
from dmf.theory.diagnostics import (
    Diagnostics,
    EnergyOutside,
    combined,
    effective_rank,
    energy_outside,
    principal_angles,
    product_svd,
)
from dmf.theory.reduced import ReducedTrajectory, closed_form_flow, gradient_flow, reduced_dynamics
from dmf.theory.singular_vectors import SingularPath, singular_flow
from dmf.theory.stability import stable_step_size, two_period_orbit
from dmf.theory.starts import compressed_start
from dmf.theory.subspaces import InvarianceChecker, InvariantSubspaces, invariant_subspaces
from dmf.theory.times import learning_times, separating_scale

__all__ = [
    "BalanceDrift",
    "Comparison",
    "CompressedTrajectory",
    "Diagnostics",
    "EnergyOutside",
    "ExactCompression",
    "InvarianceChecker",
    "InvariantSubspaces",
    "ReducedTrajectory",
    "SingularPath",
    "balancedness",
    "closed_form_flow",
    "combined",
    "compare",
    "compressed_start",
    "effective_rank",
    "energy_outside",
    "exact_compression",
    "gradient_flow",
    "invariant_subspaces",
    "learning_times",
    "principal_angles",
    "product_svd",
    "reduced_dynamics",
    "separating_scale",
    "singular_flow",
    "stable_step_size",
    "two_period_orbit",
]
