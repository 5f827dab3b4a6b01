"""dmf demo and dmf reproduce: the paper's experiments."""

from __future__ import annotations

from pathlib import Path

import click

from dmf.experiments import paper
from dmf.io.archive import check_writable, write_text
from dmf_cli.common import Progress, common_options, emit, table, to_json


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="dmf-demo.png",
    show_default=True,
    help="Picture to write.",
)
@common_options
def demo(output, seed, as_json):
    """Show the paper's main result: the compressed network beats the original.

    Completes a 100 x 100 matrix of rank 5 from 30 % of its entries, with both networks, and draws their errors.
    """
    check_writable(output)
    progress = Progress()
    experiment = paper.demo(seed, progress)
    progress.done()
    paper.draw(experiment, output)
    rows = experiment.rows()
    original, compressed = rows[0], rows[1]
    summary = (
        f"the compressed network has {original['parameters'] / compressed['parameters']:.0f} times fewer parameters and takes "
        f"{original['iterations'] / compressed['iterations']:.1f} times fewer iterations and "
        f"{original['seconds'] / max(compressed['seconds'], 1e-9):.0f} times less time"
    )
    report = {"settings": experiment.settings, "table": rows, "summary": summary, "picture": str(output)}
    emit(as_json, report, [experiment.title, "", *table(rows), "", summary, f"picture: {output}"])


@click.command()
@click.argument("experiment", type=click.Choice(list(paper.EXPERIMENTS)))
@click.option("--small", is_flag=True, help="Smaller sizes, under a minute.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True,
    help="Folder for EXPERIMENT.png and EXPERIMENT.json.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with the MovieLens-100K ratings."
)
@common_options
def reproduce(experiment, small, output, data, seed, as_json):
    """Run an experiment of the paper at the paper's sizes; write a picture and all numbers.

    The sizes of the paper take from seconds (completion, depth, factorization) over minutes (movielens) to a quarter of an hour
    (sensing). Where settings are not the paper's, the output says which.
    """
    if data is not None and experiment != "movielens":
        raise click.UsageError("--data is only for the experiment movielens.")
    picture, numbers = output / f"{experiment}.png", output / f"{experiment}.json"
    check_writable(picture)
    check_writable(numbers)
    progress = Progress()
    more = {"data": data} if experiment == "movielens" else {}
    result = paper.EXPERIMENTS[experiment](small=small, seed=seed, progress=progress, **more)
    progress.done()
    paper.draw(result, picture)
    write_text(numbers, to_json(result.as_json()) + "\n")
    report = {key: value for key, value in result.as_json().items() if key != "curves"}
    report |= {"picture": str(picture), "numbers": str(numbers)}
    note = [result.note, ""] if result.note else []
    emit(as_json, report, [result.title, "", *table(result.rows()), "", *note, f"written: {picture} and {numbers}"])
