"""dmf dynamics: how the two networks learn."""

from __future__ import annotations

from pathlib import Path

import click

from dmf.experiments.dynamics import PROBLEMS, draw_dynamics, dynamics, picture_paths
from dmf.io.writing import check_writable, json_text, make_folder, write_text
from dmf_cli.common import common_options, emit, table
from dmf_cli.progress import Progress


@click.command("dynamics")
@click.option(
    "--problem", type=click.Choice(PROBLEMS), default="factorization", show_default=True, help="What is observed."
)
@click.option("--rank", type=click.IntRange(min=1), default=3, show_default=True, help="Rank of the target.")
@click.option("--size", type=click.IntRange(min=2), default=60, show_default=True, help="Rows and columns.")
@click.option("--depth", type=click.IntRange(min=2), default=3, show_default=True, help="Number of layers.")
@click.option("--scale", type=float, default=0.05, show_default=True, help="Scale of the start, relative.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True,
    help="Folder for the pictures and dynamics-PROBLEM.json, made if it is not there.",
)  # fmt: skip
@common_options
def dynamics_command(problem, rank, size, depth, scale, output, seed, as_json):
    """Show how the original and the compressed network learn, beside the theory.

    Draws singular values and alignment of singular vectors over time, spectra of the layers, errors, and predicted against
    measured learning times.
    """
    numbers = output / f"dynamics-{problem}.json"
    make_folder(output)
    pictures = picture_paths(problem, output).values()
    for path in (*pictures, numbers):
        check_writable(path)
    with Progress() as progress:
        result = dynamics(problem, rank, size, depth, scale, seed, progress)
    draw_dynamics(result, output)
    report = result.as_json()
    write_text(numbers, json_text(report) + "\n")
    del report["histories"]
    report |= {"pictures": [str(path) for path in pictures], "numbers": str(numbers)}
    lines = [
        "iterations until half of each singular value is learned (predicted: gradient flow, everything observed)",
        "",
    ]
    lines += [*table(result.rows()), "", result.ordering(), f"written: {len(pictures)} pictures and {numbers}"]
    emit(as_json, report, lines)
