"""How deep linear networks learn, as code: exact trajectories, invariant subspaces, learning times, what is conserved."""

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
from dmf.theory.stability import stable_step_size
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
]
