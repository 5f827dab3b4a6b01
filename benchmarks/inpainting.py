"""Can a photograph be filled in after 70 % of its pixels are gone, and how does soft-impute do it?

    python benchmarks/inpainting.py

A grey photograph that scikit-learn ships (427 x 640), values from 0 to 1. `dmf.complete` has its defaults; soft-impute
(benchmarks/peers) gets the penalty of PENALTIES that is best for the pixels removed, which no user knows. PSNR over the
removed pixels, predictions clipped to 0..1, kernels compiled.
"""

from __future__ import annotations

import time
from typing import Any

import click
import matplotlib
import numpy as np
from cases import RESULTS, print_table, write_result
from peers import soft_impute
from peers.common import limited
from sklearn.datasets import load_sample_image

import dmf

THREADS, REMOVED, RANK = 2, 0.7, 60
PENALTIES = (0.5, 0.7, 1.0, 1.4, 2.0)


def photograph(name: str) -> np.ndarray:
    """Grey picture, 0 to 1."""
    return load_sample_image(name).astype(float) @ [0.299, 0.587, 0.114] / 255


def by_dmf(holed: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """`dmf.complete` without an option."""
    begin = time.perf_counter()
    recovery = dmf.complete(holed)
    seconds = time.perf_counter() - begin
    return np.asarray(recovery.filled()), {
        "seconds": seconds,
        "rank": recovery.found.rank,
        "offsets": recovery.found.offsets,
    }


def by_soft_impute(holed: np.ndarray, penalty: float = 1.0) -> tuple[np.ndarray, dict[str, Any]]:
    """Soft-impute of the picture less its mean."""
    rows, cols = np.nonzero(~np.isnan(holed))
    mean = float(np.nanmean(holed))
    case = {"rows": rows, "cols": cols, "values": holed[rows, cols] - mean, "shape": holed.shape}
    left, right, seconds = soft_impute.solve(
        case,
        min(RANK, *(size - 1 for size in holed.shape)),
        threads=THREADS,
        penalty=penalty,
        steps=3,
        iterations=100,
        tolerance=1e-3,
    )
    filled = np.where(np.isnan(holed), left @ right.T + mean, holed)
    return filled, {"seconds": seconds, "rank": int(np.linalg.matrix_rank(left)), "penalty": penalty}


def psnr(filled: np.ndarray, full: np.ndarray, removed: np.ndarray) -> float:
    """Peak signal-to-noise ratio over the removed pixels, in decibels."""
    return float(-10 * np.log10(np.mean((np.clip(filled, 0, 1) - full)[removed] ** 2)))


def draw(pictures: dict[str, np.ndarray]) -> None:
    """Write the pictures side by side."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8, 5.8), layout="constrained")
    for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
        axis.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.savefig(RESULTS / "inpainting.png", dpi=80, pil_kwargs={"optimize": True})


@click.command()
@click.option("--image", default="china.jpg", show_default=True, help="Of scikit-learn: china.jpg or flower.jpg.")
@click.option("--no-save", is_flag=True, help="Write no result.")
@dmf.threads(THREADS)
def main(image: str, no_save: bool) -> None:
    """Fill the picture in, print a table, write results/inpainting.json and results/inpainting.png."""
    full = photograph(image)
    removed = np.random.default_rng(0).random(full.shape) < REMOVED
    holed = np.where(removed, np.nan, full)
    with limited(THREADS):
        for fill in (by_dmf, by_soft_impute):  # compile
            fill(holed[:60, :80])
        ours, found = by_dmf(holed)
        runs = {"dmf.complete, defaults": found | {"psnr": psnr(ours, full, removed)}}
        tried = [by_soft_impute(holed, penalty) for penalty in PENALTIES]
    scored = [(psnr(filled, full, removed), filled, info) for filled, info in tried]
    best, theirs, info = max(scored, key=lambda one: one[0])
    runs["soft-impute, best penalty"] = info | {"psnr": best}
    trying = sum(one["seconds"] for _, _, one in scored)
    print(f"{image}, {full.shape[0]} x {full.shape[1]}, {removed.mean():.0%} of the pixels removed, {THREADS} threads")
    print_table(
        ["program", "PSNR dB", "seconds", "rank"],
        [[name, f"{r['psnr']:.2f}", r["seconds"], r["rank"]] for name, r in runs.items()],
    )
    print(
        f"soft-impute with all penalties: {trying:.1f} s;",
        {info["penalty"]: round(value, 2) for value, _, info in scored},
    )
    if not no_save:
        draw({
            "original": full, f"{removed.mean():.0%} of the pixels removed": np.where(removed, 0, full),
            f"soft-impute, best penalty: {best:.2f} dB": theirs,
            f"dmf.complete, no options: {runs['dmf.complete, defaults']['psnr']:.2f} dB": ours,
        })  # fmt: skip
        write_result("inpainting", {"image": image, "removed": REMOVED, "threads": THREADS, "runs": runs})


if __name__ == "__main__":
    main()
