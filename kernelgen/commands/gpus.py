"""tilesmith gpus: the profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kernelgen.commands.console import print_fields, print_json, print_table
from kernelgen.commands.options import json_option
from kernelgen.commands.subcommands import Subcommands

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile


@click.group(cls=Subcommands, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the GPUs tilesmith knows.

    \b
    Examples:
      tilesmith gpus
      tilesmith gpus show h200

    A profile holds one GPU's limits and latencies. For a GPU that is not in the list, write a profile of your own
    (docs/profiles.md) and give its path wherever a name is asked for; --gpu auto builds one from the driver.
    """
    if ctx.invoked_subcommand is not None:
        return
    from kernelgen.hardware.profile import load_profile, profile_names

    profiles = sorted(map(load_profile, profile_names()), key=lambda p: (p.compute_capability, p.name))
    if as_json:
        print_json([_summary(profile) for profile in profiles])
        return
    print_table(
        ("name", "GPU", "target", "SMs", "shared memory/block", "memory", "GB/s", "MHz", "also called"),
        [
            (
                profile.name,
                profile.title,
                profile.arch,
                str(profile.multiprocessors),
                f"{profile.shared_memory_per_block:,}",
                f"{profile.memory_bytes / 2**30:.0f} GiB",
                f"{profile.memory_bandwidth / 1e9:,.0f}",
                f"{profile.clock_mhz:,}",
                ", ".join(profile.aliases),
            )
            for profile in profiles
        ],
        right=("SMs", "shared memory/block", "memory", "GB/s", "MHz"),
    )


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one GPU: every number, and where it comes from.

    \b
    Examples:
      tilesmith gpus show a100
      tilesmith gpus show path/to/mine.yaml
    """
    from kernelgen.hardware.profile import load_profile

    profile = load_profile(name)
    if as_json:
        print_json(profile.model_dump(mode="json") | {"features": sorted(profile.features)})
        return
    print_fields([("name", profile.name), ("GPU", profile.title), ("target", profile.arch)])
    numbers = {
        field: value
        for field, value in profile.model_dump(mode="json").items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    rows = [(field, f"{value:,}", profile.sources.get(field, "")) for field, value in numbers.items()]
    rows += [(f"mma.sync {shape}", ", ".join(dtypes), "") for shape, dtypes in profile.matrix_instructions.items()]
    print_table(("limit", "value", "source"), rows, right=("value",))
    print_table(
        ("latency", "clocks", "source"),
        [(field, _table(value), profile.sources.get(field, "")) for field, value in profile.latencies.items()],
    )


def _summary(profile: Profile) -> dict[str, Any]:
    """What the list says of a GPU, for programs."""
    fields = ("name", "title", "arch", "multiprocessors", "shared_memory_per_block", "memory_bytes", "clock_mhz")
    return {field: getattr(profile, field) for field in fields} | {"aliases": list(profile.aliases)}


def _table(value: Any) -> str:
    """A latency: one number, or several by their coordinate."""
    if not isinstance(value, dict):
        return f"{value:g}"
    return ", ".join(
        f"{key:g}: {_table(inner)}" if not isinstance(inner, dict) else f"{key:g}: ({_table(inner)})"
        for key, inner in value.items()
    )
