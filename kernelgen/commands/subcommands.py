"""A command with commands of its own, such as `tilesmith store`."""

from __future__ import annotations

import click


class Subcommands(click.Group):
    """A group whose help says of each command all of its first paragraph, on as many lines as that takes."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; who gives the name of what is to be shown in its place is told of `show`."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from kernelgen.errors import near_names

            hint = near_names(args[0], self.commands)
            if "show" in self.commands and not hint.startswith("did you mean"):
                hint = f"did you mean `{ctx.command_path} show {args[0]}`?"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        with formatter.section("Commands"):
            helps = {name: command.help or "" for name, command in sorted(self.commands.items())}
            formatter.write_dl([(name, " ".join(text.partition("\n\n")[0].split())) for name, text in helps.items()])
