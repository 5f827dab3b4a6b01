"""dmf demo and dmf reproduce: the paper's experiments."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dmf.experiments import adaptation, catalogue, fashion, paper
from dmf.experiments.everything import ALL, WITH_DATA, reproduce_all
from dmf.io.writing import check_writable, json_text, make_folder, write_text
from dmf.report import write_gallery
from dmf.solvers import Checkpoint
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
        experiment = paper.completion(seed=seed, progress=progress)
    catalogue.draw(experiment, output)
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
_EXPERIMENTS = {name: (run, catalogue.draw, lambda path: [path]) for name, run in catalogue.EXPERIMENTS.items()}
_EXPERIMENTS["fashion-mnist"] = fashion.fashion, fashion.draw, lambda path: [path, fashion.updates_path(path)]
_EXPERIMENTS["adaptation"] = adaptation.adaptation, adaptation.draw_adaptation, lambda path: [path]


@click.command()
@click.argument("experiment", type=click.Choice([*_EXPERIMENTS, "all"]))
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
@click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds, from --seed on; only with all.")
@click.option(
    "--published", is_flag=True,
    help="Only for fashion-mnist: the paper's protocol (full batch, no biases, random factors, no averages).",
)  # fmt: skip
@common_options
@checkpoint_options
def reproduce(experiment, small, output, data, seeds, published, checkpoint, seed, as_json):
    """Run an experiment of the papers with their settings; write a picture and all numbers, and compare.

    "all" runs those that need no data one after the other, and ends with one table of the published numbers beside ours, which is
    also written as all.html, with the pictures, and as all.json. With --checkpoint and --resume it goes on where it was.

    The sizes of the papers take from seconds (completion, factorization) over minutes (alpha, fashion-mnist), some ten
    minutes (adaptation) and a quarter of an hour (sensing) to three quarters of one (movielens). Where settings are not the
    papers', the output says which. FashionMNIST is read from --data, from the Debian package dataset-fashion-mnist, or
    fetched once; with --small, scikit-learn's digits stand in for it. fashion-mnist writes fashion-mnist-updates.png as
    well. Adaptation takes the digits unless --data names a folder with FashionMNIST. With --published, fashion-mnist takes
    hours at the paper's size.
    """
    if data is not None and experiment not in WITH_DATA:
        raise click.UsageError(f"--data is only for the experiments {', '.join(WITH_DATA)}.")
    if seeds is not None and experiment != "all":
        raise click.UsageError("--seeds is only for all.")
    if published and experiment != "fashion-mnist":
        raise click.UsageError("--published is only for fashion-mnist; the others have the papers' settings.")
    if experiment == "all":
        _reproduce_all(small, output, checkpoint, range(seed, seed + (seeds or 1)), as_json)
        return
    run, draw, drawn = _EXPERIMENTS[experiment]
    numbers = output / f"{experiment}.json"
    make_folder(output)
    picture, *_ = pictures = drawn(output / f"{experiment}.png")
    check_distinct(the_numbers=numbers, the_picture=picture, the_checkpoint=checkpoint and checkpoint.path)
    for path in (*pictures, numbers):
        check_writable(path)
    more: dict[str, Any] = {"data": data} if experiment in WITH_DATA else {}
    if published:
        more["published"] = True
    with Progress() as progress:
        result = run(small=small, seed=seed, progress=progress, checkpoint=checkpoint, **more)
    draw(result, picture)
    found = result.as_json()
    write_text(numbers, json_text(found) + "\n")
    report = {key: value for key, value in found.items() if key not in ("curves", "runs")}
    report |= {"picture": str(picture), "numbers": str(numbers)}
    note = [result.note, ""] if result.note else []
    compared = [*table(found["claims"]), ""] if found.get("claims") else []
    written = f"written: {', '.join(map(str, pictures))} and {numbers}"
    emit(as_json, report, [result.title, "", *table(result.rows()), "", *compared, *note, written])


def _reproduce_all(small: bool, output: Path, checkpoint: Checkpoint | None, seeds: range, as_json: bool) -> None:
    make_folder(output)
    pictures = {name: output / f"{name}.png" for name in ALL}
    page, numbers = output / "all.html", output / "all.json"
    for path in (*pictures.values(), *(output / f"{name}.json" for name in ALL), page, numbers):
        check_writable(path)
    check_distinct(the_page=page, the_numbers=numbers, the_checkpoint=checkpoint and checkpoint.path)
    with Progress() as progress:
        report = reproduce_all(output, small, seeds, progress, checkpoint, ALL)
    rows = report["table"]
    title = f"The papers' experiments{', small versions' if small else ''}, seed {', '.join(map(str, seeds))}"
    shown = {f"{report['titles'][name]} ({name})": (path, report["notes"][name]) for name, path in pictures.items()}
    write_gallery(page, title, rows, shown)
    verdicts = [row["verdict"] for row in rows if not math.isnan(row["published"])]
    agree = sum(verdict.startswith(("agrees", "same in kind", "within")) for verdict in verdicts)
    lines = [
        f"{agree} of {len(verdicts)} published numbers agree; not run, as they need data or peers: {', '.join(WITH_DATA)}"
    ]
    lines.append(f"written: {page}, {numbers}, and a picture and the numbers of each experiment")
    emit(as_json, report | {"page": str(page), "numbers": str(numbers)}, [title, "", *table(rows), "", *lines])
