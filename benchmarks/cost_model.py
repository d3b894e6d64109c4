"""Compare the cost model with every trial that the store has measured on a GPU.

    tilesmith tune lstm --batch 16 --seq 1024 --heads 12 --head-dim 64 -o build/lstm.yaml   # on a GPU, some of these
    python benchmarks/cost_model.py                                                        # then this

For each cell, head dimension and batch: how many tilings were measured, how far the model is off (today's model, not
the one that was in force when they were measured), and how much slower the model's favourite is than the fastest.
"""

from __future__ import annotations

from collections import defaultdict

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware import load_profile
from kernelgen.schedules import get
from kernelgen.store import Store
from kernelgen.trial import Trial


def model_us(trial: Trial) -> float:
    """What the model says today of a trial's tiling, in microseconds a step."""
    profile = load_profile(trial.gpu)
    tiling = get(trial.schedule).tiling(load_cell(trial.cell), trial.shape, profile, trial.tiling)
    return tiling.clocks_per_step / profile.clock_mhz


@click.command(help=__doc__)
def main() -> None:
    """Read the store, compare, print."""
    groups: dict[tuple[str, str, int, int, int], list[tuple[float, float]]] = defaultdict(list)
    with Store() as store:
        for trial in store.trials(status="measured"):
            assert trial.measurement is not None
            if trial.cell not in cell_names():
                continue  # a cell of somebody's own: its definition is not at hand
            measured = 1000 * trial.measurement.median_ms / trial.shape.seq
            key = (trial.gpu, trial.cell, trial.shape.heads, trial.shape.head_dim, trial.shape.batch)
            groups[key].append((model_us(trial), measured))
    if not groups:
        raise SystemExit("the store has no measured trial yet: run `tilesmith tune` on a machine with a GPU first")
    shown = Table(
        "GPU", "cell", "heads x D", "B", "tilings", "fastest us/step", "model off by (median, worst)", "regret"
    )
    for (gpu, cell, heads, head_dim, batch), pairs in sorted(groups.items()):
        model, measured = np.array(pairs).T
        off = model / measured - 1
        worst = off[np.abs(off).argmax()]
        regret = measured[model.argmin()] / measured.min() - 1
        shown.add_row(
            gpu,
            cell,
            f"{heads} x {head_dim}",
            str(batch),
            str(len(pairs)),
            f"{measured.min():.3f}",
            f"{np.median(off):+.0%}, {worst:+.0%}",
            f"{regret:.0%}",
        )
    Console().print(shown)


if __name__ == "__main__":
    main()
