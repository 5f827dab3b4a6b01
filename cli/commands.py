"""The commands of the program dmf. They parse, call the library and print; there is no mathematics here."""

from __future__ import annotations

import click

import dmf_cli.distances
import dmf_cli.dynamics
import dmf_cli.model
import dmf_cli.paper
import dmf_cli.rank
import dmf_cli.solve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dmf")
def program() -> None:
    """Recover low-rank matrices with compressed deep linear networks.

    Start with `dmf demo`, or complete a file of ratings with `dmf complete FILE`. Exit codes: 0 done, 1 error, 2 wrong usage.
    """


for command in (
    dmf_cli.paper.demo,
    dmf_cli.solve.complete,
    dmf_cli.model.predict,
    dmf_cli.rank.rank,
    dmf_cli.distances.distances,
    dmf_cli.solve.factorize,
    dmf_cli.solve.sense,
    dmf_cli.model.info,
    dmf_cli.paper.reproduce,
    dmf_cli.dynamics.dynamics_command,
):
    program.add_command(command)
