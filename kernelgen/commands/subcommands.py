"""A command with commands of its own, such as `tilesmith store`."""

from __future__ import annotations

import click


class Subcommands(click.Group):
    """A group whose help says of each command all of its first paragraph, on as many lines as that takes."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        with formatter.section("Commands"):
            helps = {name: command.help or "" for name, command in sorted(self.commands.items())}
            formatter.write_dl([(name, " ".join(text.partition("\n\n")[0].split())) for name, text in helps.items()])
