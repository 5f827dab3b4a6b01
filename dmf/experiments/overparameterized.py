"""The experiments of Yaras et al. on completion: compressed starts from the gradient, and what depth and width are good for.

The paper's numbers are not published with code, so what is found here stands alone.

References
----------
.. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), sections 3 and 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.experiments.paper import SMALL
from dmf.experiments.problems import paper_target, sample_entries
from dmf.experiments.results import Experiment, Progress, Runner, relative_error
from dmf.models import DeepLinearNetwork, orthogonal_network, spectral_network
from dmf.solvers import Checkpoint
from dmf.theory import compressed_start, energy_outside


def compressed_starts(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Completion from the start that the original network's gradient gives, for several speeds of the outer factors.

    Against the original network, a narrow one from random layers, and the spectral start of Kwon et al. The column "outside"
    holds the share of the energy of a network's product that lies outside the subspaces of the compressed start: for the
    original network, how far the compression is from exact.
    """
    settings: dict[str, Any] = SMALL if small else {"d": 100, "rank": 5, "share of entries seen": 0.3}
    scales = [0.0, 0.01, 0.1, 1.0]
    settings = settings | {
        "compressed rank": 2 * settings["rank"], "depth": 3, "scale": 1e-2, "step size": 10.0,
        "outer scales (compressed start)": scales, "outer scale (spectral start)": 5.0, "tolerance": 1e-12, "seed": seed,
    }  # fmt: skip
    d, rank, share = settings["d"], settings["rank"], settings["share of entries seen"]
    target = paper_target(d, rank, seed)
    seen, _ = sample_entries(target, share, seed)
    title = f"Compressed start: completion of {d} x {d}, rank {rank}, {share:.0%} of the entries seen"
    note = (
        "no numbers are published for this; outer factors that stay cannot leave the subspaces of the surrogate, which do not "
        "hold the target, slow ones follow the original network"
    )
    experiment = Experiment("compressed-start", title, "relative recovery error", settings, small, note=note)
    wide = orthogonal_network(target.shape, seed=seed)
    start, error = compressed_start(seen, wide, rank, seed), relative_error(target)
    right, left = start.weights[0].T, start.weights[-1]

    def measure(network: DeepLinearNetwork) -> dict[str, float]:
        return {**error(network), "outside": energy_outside(network.product(), left, right)}

    runner = Runner(experiment, seen, measure, progress, checkpoint)
    options = {"iterations": 4_000 if small else 25_000, "tolerance": 1e-12, "record_every": 50}
    original = runner.descend("original", wide, 10.0, **options)
    found = {
        scale: runner.descend(f"compressed start, outer scale {scale:g}", start, 10.0, outer_scale=scale, **options)
        for scale in scales
    }
    narrow = orthogonal_network(target.shape, width=2 * rank, seed=seed)
    random = runner.descend("narrow, random", narrow, 10.0, **options)
    runner.descend("spectral start", spectral_network(seen, 2 * rank), 10.0, outer_scale=5.0, **options)
    slow = found[0.1]
    experiment.finding("iterations, compressed start at 0.1 over original", slow.iterations / original.iterations)
    experiment.finding("iterations, narrow over original", random.iterations / original.iterations)
    for name, curve in (("0.1", slow), ("0", found[0.0])):
        experiment.finding(f"error at the end, compressed start at {name}", float(curve.run.history["error"][-1]))
    outside = float(original.run.history["outside"][-1])
    experiment.finding("energy of the original's product outside the start's subspaces", outside)
    return experiment


def depth_and_width(
    small: bool = False, seed: int = 0, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Experiment:
    """Wide networks of depth 2 and 3 on ever more entries, and networks of depth 3 of ever larger width on one problem."""
    d, rank, share = (40, 2, 0.4) if small else (100, 5, 0.3)
    shares = [0.2, 0.3, 0.4] if small else [0.12, 0.15, 0.2, 0.25, 0.3, 0.4]
    widths = [rank * factor for factor in (1, 2, 4)] + [d]
    steps, iterations = {2: 40.0, 3: 10.0}, 5_000 if small else 20_000
    settings: dict[str, Any] = {
        "d": d, "rank": rank, "shares of entries seen": shares, "widths": widths, "share (widths)": share, "scale": 1e-2,
        "step size (depth 2)": steps[2], "step size (depth 3)": steps[3], "tolerance": 1e-10, "seed": seed,
    }  # fmt: skip
    target = paper_target(d, rank, seed)
    title = f"Depth and width: completion of {d} x {d}, rank {rank}"
    note = "no numbers are published for this; at depth 2 the step is four times larger and runs end after 5,000 iterations"
    experiment = Experiment("depth-and-width", title, "relative recovery error", settings, small, note=note)
    options = {"tolerance": 1e-10, "record_every": 100}
    errors: dict[int, list[float]] = {2: [], 3: []}
    for layers, seen_share in ((layers, seen_share) for layers in (2, 3) for seen_share in shares):
        seen, _ = sample_entries(target, seen_share, seed)
        runner = Runner(experiment, seen, relative_error(target), progress, checkpoint)
        start, most = orthogonal_network(target.shape, layers, seed=seed), 5_000 if layers == 2 else iterations
        curve = runner.descend(
            f"depth {layers}, {seen_share:.0%} seen", start, steps[layers], iterations=most, **options
        )
        errors[layers].append(float(curve.run.history["error"][-1]))
    seen, _ = sample_entries(target, share, seed)
    runner = Runner(experiment, seen, relative_error(target), progress, checkpoint)
    needed = []
    for width in widths:
        start = orthogonal_network(target.shape, width=width, seed=seed)
        curve = runner.descend(f"width {width}", start, steps[3], iterations=4 * iterations, **options)
        needed.append(curve.iterations)
    for layers in (2, 3):
        experiment.finding(f"error with {shares[-1]:.0%} seen, depth {layers}", errors[layers][-1])
        fewest = [shares[k] for k, error in enumerate(errors[layers]) if error < 1e-3]
        experiment.finding(f"smallest share with an error below 1e-3, depth {layers}", min(fewest, default=np.nan))
    experiment.finding(f"iterations, width {widths[1]} over width {d}", needed[1] / needed[-1])
    return experiment
