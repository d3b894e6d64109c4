"""Train three models twice, with our recurrence and with what there is without it: the same curves, and the time.

    python benchmarks/models.py --json build/models.json            # large on a GPU, tiny without one
    python benchmarks/models.py --only language --steps 40
    python benchmarks/models.py --seconds 15                        # each twin ends then, and ours after as many steps

- speech: two convolutions, four bidirectional LSTM layers of 320 units, CTC, on sequences that are drawn; beside
  torch.nn.LSTM.
- language: sLSTM blocks as xLSTM has them (large: 124 million parameters) on the bytes of this documentation; beside
  a loop in PyTorch, as xLSTM's vanilla backend is one. Ours is that model after kernelgen.torch.xlstm.convert.
- control: recurrent PPO on corridors at whose end a cue must be remembered: it acts step by step, and learns with
  resets; beside torch.nn.LSTMCell, step by step.

Both begin with the same weights and see the same data; in control, what is seen follows from what was done. On a GPU,
ours computes in bfloat16 under autocast (control in TF32) and the twin in float16 (speech), bfloat16 (language) and
TF32 (control), unless --dtype and --peer-dtype say others; parameters are float32. tf32 is float32 with TF32 products
allowed. The end of a curve is the mean of its last tenth, with the standard deviation there. Times are medians of whole
training steps after a warm-up, without the first calls, which compile. The recurrence is what passes between the
beginning and the end of its modules, forward and backward, in a few steps more.
"""

from __future__ import annotations

import json
import platform
import warnings
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table
from workloads import control, language, speech
from workloads.common import DTYPES, Numbers, Settings, Workload, train

WORKLOADS = {"speech": speech.Speech, "language": language.Language, "control": control.Control}
SIZES = {
    preset: {
        name: getattr(module, preset.upper())
        for name, module in (("speech", speech), ("language", language), ("control", control))
    }
    for preset in ("tiny", "medium", "large")
}
RATES = {"speech": 1e-3, "language": 3e-4, "control": 1e-3}


def compare(workload: Workload, dtype: str, peer_dtype: str, settings: Settings) -> list[Numbers]:
    """The twin's run, and ours with as many steps."""
    twin = train(workload, False, peer_dtype, settings)
    steps = len(twin[workload.value])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # such as: there is no kernel, a loop runs
        ours = train(workload, True, dtype, replace(settings, steps=steps, seconds=None))
    ours["warnings"] = sorted({str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)})
    ours["speed_up"] = twin["step_ms"] / ours["step_ms"]
    ours["recurrence_speed_up"] = twin["recurrence_ms"] / ours["recurrence_ms"]
    return [twin, ours]


def report(runs: list[Numbers], device: str, console: Console) -> None:
    """Print a line for each run."""
    table = Table(title=f"{device}; times are medians in ms (10 to 90 %)")
    for heading in ("", "", "dtype", "steps", "value at the end", "a step", "x", "recurrence", "share", "x"):
        table.add_column(heading)
    for run in runs:
        value = next(name for name in ("loss", "reward") if name in run)
        ratios = [f"{run[name]:.2f}" if name in run else "" for name in ("speed_up", "recurrence_speed_up")]
        table.add_row(
            run["workload"], run["system"], run["dtype"], str(len(run[value])),
            f"{value} {run['end']:.4f} +- {run['spread']:.4f}",
            f"{run['step_ms']:.2f} ({run['step_p10_ms']:.2f} to {run['step_p90_ms']:.2f})", ratios[0],
            f"{run['recurrence_ms']:.2f}", f"{run['recurrence_share']:.0%}", ratios[1],
        )  # fmt: skip
    console.print(table)
    for run in runs:
        for message in run.get("warnings", ()):
            console.print(f"{run['workload']}: {message}")


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=click.Choice(list(WORKLOADS)), help="One of the three, or several.")
@click.option("--preset", type=click.Choice(list(SIZES)), help="Large on a GPU, tiny without, unless it is said.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="A GPU where there is one, unless it is said.")
@click.option("--steps", type=click.IntRange(1), default=300)
@click.option("--seconds", type=click.FloatRange(min=0), help="Let each twin end after so long.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="Ours; float32 on a CPU.")
@click.option("--peer-dtype", type=click.Choice(list(DTYPES)), help="The twin's; float32 on a CPU.")
@click.option("--seed", type=int, default=0)
@click.option("--probes", type=click.IntRange(1), default=3, help="Steps in which the recurrence is timed.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write every number there.")
def main(
    only: tuple[str, ...],
    preset: str | None,
    device: str | None,
    steps: int,
    seconds: float | None,
    dtype: str | None,
    peer_dtype: str | None,
    seed: int,
    probes: int,
    path: Path | None,
) -> None:
    """Train, compare, print."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("PyTorch finds no GPU here; --device cpu trains without")
    place, cuda = torch.device(device), device == "cuda"
    sizes = SIZES[preset or ("large" if cuda else "tiny")]
    machine = torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}"
    runs: list[Numbers] = []
    for name in only or WORKLOADS:
        workload = WORKLOADS[name](sizes[name], place, seed)
        settings = Settings(place, steps, seconds, RATES[name], probes)
        kinds = (workload.dtype, workload.peer_dtype) if cuda else ("float32", "float32")
        runs += compare(workload, dtype or kinds[0], peer_dtype or kinds[1], settings)
        if path is not None:  # after each, so that nothing is lost
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"machine": machine, "torch": torch.__version__, "runs": runs}, indent=1))
    report(runs, machine, Console(width=170))


if __name__ == "__main__":
    main()
