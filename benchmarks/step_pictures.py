"""Where the time of a step goes and what was tried, as pictures: on the GPU of this machine, in one command.

    python benchmarks/step_pictures.py --out build/pictures

Of an LSTM of 12 x 64 (schedule resident) and one of 1 x 512 (schedule cluster), B = 16: tunes it, profiles its steps
(FILE.svg, and FILE.json with the phases, their sum and the measured step), and draws every chart of its report. Says of
each by how much the phases' sum differs from a step measured without marks. About half a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click

KERNELS = {"resident_12x64": (12, 64), "cluster_1x512": (1, 512)}
"""Heads and head dimension, by the name of a picture."""


def tilesmith(*words: object) -> str:
    """Run a command; what it printed. Raises ClickException where it fails."""
    command = [sys.executable, "-m", "kernelgen.commands", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"tilesmith {words[0]} ended with status {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="build/pictures", show_default=True)
@click.option("--seq", default=1024, show_default=True, help="Steps.")
@click.option("--top", default=4, show_default=True, help="Candidates of each kernel.")
@click.option("--only", multiple=True, type=click.Choice(list(KERNELS)), default=list(KERNELS), help="One of the two.")
def main(out: Path, seq: int, top: int, only: tuple[str, ...]) -> None:
    """Draw."""
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TILESMITH_CACHE", str(out / "cache"))
    for name, (heads, dim) in ((name, KERNELS[name]) for name in only):
        file = out / f"{name}.yaml"
        shape = ("--batch", 16, "--seq", seq, "--heads", heads, "--head-dim", dim)
        tilesmith("tune", "lstm", *shape, "--top", top, "-o", file)
        plot = ("--plot", out / f"{name}.svg") if find_spec("matplotlib") else ()
        text = tilesmith("profile", file, "--json", *plot)
        (out / f"{name}.json").write_text(text)
        found = json.loads(text)
        phases, step = found["us_per_step"], found["measured_us_per_step"]
        print(f"{name}: phases {phases:.4f} us, step {step:.4f} us ({phases / step - 1:+.1%})", flush=True)
        try:
            tilesmith("report", file, "-o", out / f"{name}.html", "--charts", out / name)
        except click.ClickException as error:  # the charts' package is not everywhere
            print(f"{name}: no report: {error.message}")


if __name__ == "__main__":
    main()
