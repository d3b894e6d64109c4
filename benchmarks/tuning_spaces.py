"""Kernel Tuner's search space beside what takes its place, in one process and in turns: how many times less it takes.

    python benchmarks/tuning_spaces.py --spaces FOLDER
    python benchmarks/tuning_spaces.py --spaces FOLDER --only gemm --runs 25

FOLDER holds spaces in JSON, as benchmarks/solver.py reads them; without it, and beside them, those of this file are
compared, which hold text, truth values, decimals and Python functions. `pip install kernel_tuner` brings the peer.

Milliseconds of the processor from parameters and restrictions, the least of --runs (other load only adds to them), and
how many times less than Kernel Tuner's: "build" until the size is known (Kernel Tuner lists, always) and, here, a
hundred configurations are drawn; "sample" until Kernel Tuner's own hundred are, those of the same seed; "tuples" until
all are listed; "dicts" until each is a dictionary, which Kernel Tuner's users make of its tuples. The lists and the
samples must be equal.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

THREADS = 2**40
"""Of a block: the spaces state their own limits."""
DRAWN = 100
Space = Mapping[str, Any]

OWN: dict[str, Space] = {
    "stencil with text and truth values": {
        "tune_params": {
            "block_x": [8, 16, 32, 64, 128, 256],
            "block_y": [1, 2, 4, 8, 16],
            "steps": [1, 2, 3, 4, 6, 8],
            "layout": ["row", "column", "tiled"],
            "prefetch": [True, False],
            "scale": [0.5, 1.0, 1.5, 2.0],
            "unroll": [0, 1, 2, 4, 8],
        },
        "restrictions": [
            "32 <= block_x * block_y <= 1024",
            "layout != 'tiled' or (block_x % 32 == 0 and prefetch)",
            "block_x * scale >= 16",
            "unroll == 0 or steps % unroll == 0 or not prefetch",
        ],
    },
    "product with functions": {
        "tune_params": {
            "m": [16, 32, 64, 128, 256],
            "n": [16, 32, 64, 128, 256],
            "k": [8, 16, 32, 64],
            "warps_m": [1, 2, 4, 8],
            "warps_n": [1, 2, 4, 8],
            "stages": [1, 2, 3, 4],
            "precise": [True, False],
            "store": ["direct", "staged", None],
        },
        "restrictions": [
            lambda p: p["m"] % (16 * p["warps_m"]) == 0 and p["n"] % (8 * p["warps_n"]) == 0,
            lambda p: 2 * p["k"] * (p["m"] + p["n"]) * p["stages"] <= 99 * 1024,
            lambda p: p["store"] != "staged" or not p["precise"],
        ],
    },
    "layers over devices, with functions": {
        "tune_params": {f"device{number}": list(range(48)) for number in range(4)},
        "restrictions": [
            lambda device0, device1, device2, device3: device0 + device1 + device2 + device3 == 48,
            lambda device0, device1, device2, device3: min(device0, device1, device2, device3) >= 1,
        ],
    },
}


def kernel_tuner(space: Space) -> Any:
    """Kernel Tuner's, with its default solver."""
    from kernel_tuner.searchspace import Searchspace

    with contextlib.redirect_stdout(io.StringIO()):
        return Searchspace(dict(space["tune_params"]), list(space["restrictions"]), THREADS)


def stand_in(space: Space) -> Any:
    """What takes its place."""
    from constrint.kernel_tuner import Searchspace

    return Searchspace(dict(space["tune_params"]), list(space["restrictions"]), THREADS)


def drawn(space: Space) -> Any:
    """The size known, and some configurations drawn."""
    found = stand_in(space)
    found.solutions.sample(min(DRAWN, found.size), seed=1)
    return found


def sampled(space: Space, make: Callable[[Space], Any]) -> Any:
    """As Kernel Tuner draws."""
    import numpy as np

    found = make(space)
    np.random.seed(1)
    found.get_random_sample(min(DRAWN, found.size))
    return found


def kernel_tuner_dicts(space: Space) -> list[dict[str, Any]]:
    """As its users make them."""
    names = list(space["tune_params"])
    return [dict(zip(names, config, strict=True)) for config in kernel_tuner(space).list]


WAYS: dict[str, Callable[[Space], Any]] = {
    "kernel-tuner": kernel_tuner,
    "build": drawn,
    "kernel-tuner sample": lambda space: sampled(space, kernel_tuner),
    "sample": lambda space: sampled(space, stand_in),
    "tuples": lambda space: stand_in(space).list,
    "kernel-tuner dicts": kernel_tuner_dicts,
    "dicts": lambda space: stand_in(space).dicts(),
}


def seconds(way: Callable[[Space], Any], space: Space) -> float:
    """Of the processor, for one call; what it made is thrown away after."""
    gc.collect()
    start = time.process_time()
    made = way(space)
    taken = time.process_time() - start
    del made
    return taken


def check(space: Space) -> int:
    """The number of configurations. Raises ClickException where the two disagree."""
    import numpy as np

    theirs, ours = kernel_tuner(space), stand_in(space)
    names = list(space["tune_params"])
    draws = ours.solutions.sample(min(DRAWN, ours.size), seed=2)
    samples = []
    for each in (theirs, ours):
        np.random.seed(3)
        samples.append(each.get_random_sample(min(DRAWN, ours.size)))
    same = (
        theirs.size == ours.size == space.get("expected_count", ours.size)
        and ours.list == theirs.list
        and samples[0] == samples[1]
        and ours.dicts() == [dict(zip(names, config, strict=True)) for config in theirs.list]
        and {tuple(draw[name] for name in names) for draw in draws} <= set(theirs.list)
    )
    if not same:
        raise click.ClickException(f"different lists: {theirs.size:,} of Kernel Tuner's, {ours.size:,} here")
    return int(ours.size)


@click.command(help=__doc__)
@click.option("--spaces", type=click.Path(path_type=Path, exists=True, file_okay=False), help="folder of spaces")
@click.option("--only", multiple=True, help="names of spaces; all by default")
@click.option("--runs", default=9, show_default=True, help="repeats; the least counts")
def main(spaces: Path | None, only: tuple[str, ...], runs: int) -> None:
    warnings.simplefilter("ignore")  # Kernel Tuner compiles restrictions that Python warns of
    known = {path.stem: json.loads(path.read_text()) for path in sorted(spaces.glob("*.json"))} if spaces else {}
    known |= OWN
    wanted = {name: space for name, space in known.items() if not only or name in only}
    if not wanted:
        raise click.ClickException(f"none of these spaces; known: {', '.join(known)}")
    try:
        import kernel_tuner.searchspace  # noqa: F401
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install kernel_tuner") from None
    click.echo(
        "| space | configurations | Kernel Tuner | build | sample | tuples | dicts "
        "| times less: build | sample | tuples | dicts |"
    )
    click.echo("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, space in wanted.items():
        count = check(space)
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(runs):
            for way, call in WAYS.items():
                taken[way].append(seconds(call, space))
        found = {way: min(each) for way, each in taken.items()}
        theirs = ("kernel-tuner", "kernel-tuner sample", "kernel-tuner", "kernel-tuner dicts")
        peers = dict(zip(("build", "sample", "tuples", "dicts"), theirs, strict=True))
        columns = [f"{1e3 * found[way]:.3g}" for way in ("kernel-tuner", *peers)]
        times = [found[peer] / found[way] for way, peer in peers.items()]
        click.echo(f"| {name} | {count:,} | {' | '.join(columns)} | {' | '.join(f'{x:.1f}' for x in times)} |")


if __name__ == "__main__":
    main()
