"""The commands of the program dmf. They parse, call the library and print; there is no mathematics here."""

from __future__ import annotations

from importlib import import_module

import click

from dmf_cli.main import ended_by_interrupts

# Where each command is, and its line in the help: modules are loaded when their command is called, so that help is quick.
_COMMANDS = {
    "demo": ("dmf_cli.paper", "demo", "Show the paper's main result: the compressed network beats the original."),
    "complete": ("dmf_cli.solve", "complete", "Complete a matrix from some of its entries."),
    "predict": ("dmf_cli.model", "predict", "Predict entries of a completed matrix, or rank the columns of its rows."),
    "update": ("dmf_cli.update", "update", "Take new entries, rows and columns into a model."),
    "together": ("dmf_cli.together", "together", "Complete several tables of the same rows and columns together."),
    "rank": ("dmf_cli.rank", "rank", "Compare ranks by the error on entries held out."),
    "distances": ("dmf_cli.distances", "distances", "Fill in the distances between points, some of which are in FILE."),
    "factorize": ("dmf_cli.solve", "factorize", "Approximate a fully known matrix by one of low rank."),
    "sense": ("dmf_cli.solve", "sense", "Recover a matrix from linear measurements y_i = <A_i, X>."),
    "info": ("dmf_cli.info", "info", "Show what a model file holds."),
    "reproduce": ("dmf_cli.paper", "reproduce", "Run an experiment of the paper at the paper's sizes."),
    "dynamics": (
        "dmf_cli.dynamics",
        "dynamics_command",
        "Show how the original and the compressed network learn, beside the theory.",
    ),
}


class _Commands(click.Group):
    """The commands by name; their modules are loaded when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        with ended_by_interrupts():
            return getattr(import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dmf")
def program() -> None:
    """Recover low-rank matrices with compressed deep linear networks.

    Start with `dmf demo`, or complete a file of ratings with `dmf complete FILE`. Exit codes: 0 done, 1 error, 2 wrong usage,
    130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.
    """
