"""tilesmith cells: the library of cells."""

from __future__ import annotations

import click

from kernelgen.commands.console import print_json, print_table
from kernelgen.commands.options import CELL_HELP, json_option
from kernelgen.commands.subcommands import Subcommands


@click.group(cls=Subcommands, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the cells of the library.

    \b
    Examples:
      tilesmith cells
      tilesmith cells show lstm
      tilesmith cells show path/to/mine.py:MINE
    """
    if ctx.invoked_subcommand is not None:
        return
    from kernelgen.cells import cell_names, load_cell

    cells = [load_cell(name) for name in cell_names()]
    if as_json:
        print_json(
            [
                {"name": c.name, "title": c.title, "states": list(c.states), "gates": [gate.name for gate in c.gates]}
                for c in cells
            ]
        )
        return
    print_table(
        ("name", "cell", "states", "gates", "paper"),
        [(c.name, c.title, ", ".join(c.states), ", ".join(gate.name for gate in c.gates), c.paper) for c in cells],
    )


@command.command(help=f"Show a cell: states, what each gate receives, and the equations of its step.\n\n{CELL_HELP}")
@click.argument("cell", metavar="CELL")
@json_option
def show(cell: str, as_json: bool) -> None:
    """Show one cell's equations."""
    from kernelgen.cells import load_cell
    from kernelgen.emit.text import equations

    loaded = load_cell(cell)
    if not as_json:
        click.echo(equations(loaded))
        return
    print_json(
        {
            "name": loaded.name,
            "title": loaded.title,
            "paper": loaded.paper,
            "states": list(loaded.states),
            "gates": [
                {"name": gate.name, "recurrent": gate.recurrent, "input": gate.input, "bias": gate.bias}
                for gate in loaded.gates
            ],
            "equations": equations(loaded),
            "fingerprint": loaded.fingerprint,
        }
    )
