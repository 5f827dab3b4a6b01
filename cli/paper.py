"""dmf demo and dmf reproduce: the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dmf.experiments import adaptation, fashion, paper
from dmf.io.writing import check_writable, json_text, make_folder, write_text
from dmf_cli.common import check_distinct, checkpoint_options, common_options, emit, table
from dmf_cli.progress import Progress


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
    with Progress() as progress:
        experiment = paper.demo(seed, progress)
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


# Name -> how it is run and drawn, and the pictures that drawing writes for one path.
_EXPERIMENTS: dict[str, tuple[Callable[..., Any], Callable[..., None], Callable[[Path], list[Path]]]]
_EXPERIMENTS = {name: (run, paper.draw, lambda path: [path]) for name, run in paper.EXPERIMENTS.items()}
_EXPERIMENTS["fashion-mnist"] = fashion.fashion, fashion.draw, lambda path: [path, fashion.updates_path(path)]
_EXPERIMENTS["adaptation"] = adaptation.adaptation, adaptation.draw_adaptation, lambda path: [path]
_WITH_DATA = ("movielens", "fashion-mnist", "adaptation")


@click.command()
@click.argument("experiment", type=click.Choice(list(_EXPERIMENTS)))
@click.option("--small", is_flag=True, help="Smaller sizes, under a minute.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True,
    help="Folder for EXPERIMENT.png and EXPERIMENT.json, made if it is not there.",
)  # fmt: skip
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="File with the MovieLens-100K ratings, or folder with the IDX files of FashionMNIST.",
)
@common_options
@checkpoint_options
def reproduce(experiment, small, output, data, checkpoint, seed, as_json):
    """Run an experiment of the paper at the paper's sizes; write a picture and all numbers.

    The sizes of the paper take from seconds (completion, depth, factorization) over minutes (movielens, fashion-mnist)
    to some ten minutes (adaptation) and a quarter of an hour (sensing). Where settings are not the paper's, the output says
    which. FashionMNIST is read from --data, from the Debian package dataset-fashion-mnist, or fetched once; with --small,
    scikit-learn's digits stand in for it. fashion-mnist writes fashion-mnist-updates.png as well. Adaptation takes the digits
    unless --data names a folder with FashionMNIST.
    """
    if data is not None and experiment not in _WITH_DATA:
        raise click.UsageError(f"--data is only for the experiments {', '.join(_WITH_DATA)}.")
    run, draw, drawn = _EXPERIMENTS[experiment]
    numbers = output / f"{experiment}.json"
    make_folder(output)
    picture, *_ = pictures = drawn(output / f"{experiment}.png")
    check_distinct(the_numbers=numbers, the_picture=picture, the_checkpoint=checkpoint and checkpoint.path)
    for path in (*pictures, numbers):
        check_writable(path)
    more = {"data": data} if experiment in _WITH_DATA else {}
    with Progress() as progress:
        result = run(small=small, seed=seed, progress=progress, checkpoint=checkpoint, **more)
    draw(result, picture)
    write_text(numbers, json_text(result.as_json()) + "\n")
    report = {key: value for key, value in result.as_json().items() if key not in ("curves", "runs")}
    report |= {"picture": str(picture), "numbers": str(numbers)}
    note = [result.note, ""] if result.note else []
    written = f"written: {', '.join(map(str, pictures))} and {numbers}"
    emit(as_json, report, [result.title, "", *table(result.rows()), "", *note, written])
