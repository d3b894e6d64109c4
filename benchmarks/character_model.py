"""Train one character model with torch.nn.LSTM and with kernelgen.torch.LSTM: the same curve, and the time of both.

    python benchmarks/character_model.py --json build/character_model.json --plot build/character_model.svg
    python benchmarks/character_model.py --replot build/character_model.json --plot build/character_model.svg

The model is an embedding, LSTM layers and a readout; it learns to predict the next character of English prose, the
help texts that come with Python or --text. kernelgen.torch.LSTM trains it in --dtype, torch.nn.LSTM in every
--peer-dtype, from the same initial weights and on the same batches. Weights are kept in float32; forward and backward
pass run in the dtype on a copy of them (in float16 with a constant loss scale), and not under autocast, so that a
module computes in the dtype that is said. tf32 is float32 with TF32 products allowed. Each module gets the layout it
likes: torch.nn.LSTM [T, B, I], kernelgen.torch.LSTM [B, T, I].

Within noise means: the mean and the largest difference of the two losses, each smoothed by a running mean over --window
steps, are no larger than the same differences between two runs of torch.nn.LSTM, in the first --peer-dtype, that see
other batches (another seed for where they begin) and differ in nothing else. Losses are in nats per character.

Times: the median training step (batch, forward, backward, clipping, Adam) after a warm-up; and the LSTM layers alone at
the same shape, forward and backward, gradients of input and weights, weights in the dtype.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kernelgen.torch import LSTM

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LOSS_SCALE = {"float16": 1024.0}  # gradients of a mean over B T characters would sink below float16's smallest numbers
OURS, PEER = "kernelgen.torch.LSTM", "torch.nn.LSTM"
WARM_UP = 20
"""Steps, or repetitions of the layers, that are not counted; at most half of them."""

Numbers = dict[str, Any]
Mark = torch.cuda.Event | float


@dataclass(frozen=True)
class Settings:
    """What both modules share. seed: of the initial weights. rate: Adam's learning rate."""

    device: str
    steps: int
    batch: int
    seq: int
    hidden: int
    layers: int
    rate: float
    seed: int
    window: int
    repetitions: int


class CharacterModel(nn.Module):
    """Embedding, LSTM layers, readout; ``ours`` says which LSTM."""

    def __init__(self, ours: bool, characters: int, settings: Settings) -> None:
        super().__init__()
        self.time_axis = 1 if ours else 0
        self.embedding = nn.Embedding(characters, settings.hidden)
        self.recurrent = _lstm(ours, settings)
        self.readout = nn.Linear(settings.hidden, characters)

    def loss(self, tokens: Tensor) -> Tensor:
        """The mean cross entropy of every next character of tokens [B, T + 1], in float32."""
        tokens = tokens if self.time_axis == 1 else tokens.t()
        length = tokens.shape[self.time_axis] - 1
        inputs, targets = (tokens.narrow(self.time_axis, start, length) for start in (0, 1))
        output, _ = self.recurrent(self.embedding(inputs))
        return nn.functional.cross_entropy(self.readout(output).float().flatten(0, 1), targets.flatten())


def _lstm(ours: bool, settings: Settings) -> nn.Module:
    sizes = (settings.hidden, settings.hidden, settings.layers)
    return LSTM(*sizes, batch_first=True) if ours else nn.LSTM(*sizes)


def train(ours: bool, dtype: str, order: int, text: Tensor, initial: dict[str, Tensor], settings: Settings) -> Numbers:
    """Train on the batches that the seed ``order`` gives; every step's loss and the times of the steps.

    text: int64, one entry per character. Raises ClickException for a loss that is not finite.
    """
    name, scale = _label(ours, dtype), LOSS_SCALE.get(dtype, 1.0)
    characters = len(initial["embedding.weight"])
    model = CharacterModel(ours, characters, settings)
    model.load_state_dict(initial)
    masters = [weight.detach().clone().to(settings.device) for weight in model.parameters()]
    model.to(settings.device, DTYPES[dtype])
    weights, gradients = list(model.parameters()), [torch.zeros_like(master) for master in masters]
    for master, gradient in zip(masters, gradients, strict=True):
        master.grad = gradient
    optimizer = torch.optim.Adam(masters, lr=settings.rate, fused=settings.device != "cpu")
    _allow_tf32(dtype == "tf32")

    generator = torch.Generator().manual_seed(order)
    starts = torch.randint(len(text) - settings.seq, (settings.steps, settings.batch, 1), generator=generator)
    starts, span = starts.to(settings.device), torch.arange(settings.seq + 1, device=settings.device)
    losses = torch.empty(settings.steps, device=settings.device)
    marks: list[tuple[Mark, Mark]] = []
    for step in range(settings.steps):
        begin = _mark(settings.device)
        loss = model.loss(text[starts[step] + span])
        (loss * scale).backward()
        torch._foreach_copy_(gradients, [weight.grad for weight in weights])
        torch._foreach_mul_(gradients, 1 / scale)
        model.zero_grad()
        nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(weights, masters)
        losses[step] = loss.detach()
        marks.append((begin, _mark(settings.device)))
        if (step + 1) % 100 == 0:  # not oftener: reading a loss waits for the GPU
            click.echo(f"{name}, order {order}: step {step + 1}, loss {loss.item():.4f}", err=True)
    _synchronise(settings.device)
    values = losses.tolist()
    bad = next((step for step, value in enumerate(values, 1) if not math.isfinite(value)), None)
    if bad is not None:
        raise click.ClickException(f"{name}: the loss of step {bad} is {values[bad - 1]}")
    times = [_milliseconds(*pair) for pair in marks]
    return {"module": OURS if ours else PEER, "dtype": dtype, "order": order, "losses": values, "step": _spread(times)}


def time_layers(ours: bool, dtype: str, settings: Settings) -> Numbers:
    """The times of the LSTM layers alone, forward, backward and both."""
    _allow_tf32(dtype == "tf32")
    torch.manual_seed(settings.seed)
    module = _lstm(ours, settings).to(settings.device, DTYPES[dtype])
    shape = (settings.batch, settings.seq) if ours else (settings.seq, settings.batch)
    x = torch.randn(*shape, settings.hidden, device=settings.device, dtype=DTYPES[dtype], requires_grad=True)
    gradient = torch.randn_like(x)
    marks = []
    for _ in range(settings.repetitions):
        module.zero_grad()
        x.grad = None
        begin = _mark(settings.device)
        output, _ = module(x)
        between = _mark(settings.device)
        output.backward(gradient)
        marks.append((begin, between, _mark(settings.device)))
    _synchronise(settings.device)
    return {
        "module": OURS if ours else PEER,
        "dtype": dtype,
        "forward": _spread([_milliseconds(begin, between) for begin, between, _ in marks]),
        "backward": _spread([_milliseconds(between, end) for _, between, end in marks]),
        "both": _spread([_milliseconds(begin, end) for begin, _, end in marks]),
    }


def _mark(device: str) -> Mark:
    """A moment: on a GPU, of its queue."""
    if device == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _milliseconds(begin: Mark, end: Mark) -> float:
    if isinstance(begin, float):
        return 1000 * (end - begin)
    return float(begin.elapsed_time(end))


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _spread(times: Sequence[float]) -> Numbers:
    """Median, 10th and 90th percentile after the warm-up, in milliseconds."""
    counted = sorted(times[min(WARM_UP, len(times) // 2) :])
    low, high = (counted[round(part * (len(counted) - 1))] for part in (0.1, 0.9))
    return {"median_ms": statistics.median(counted), "p10_ms": low, "p90_ms": high, "counted": len(counted)}


def smoothed(losses: Sequence[float], window: int) -> list[float]:
    """The mean of each loss and the window - 1 before it, or as many as there are."""
    return [statistics.fmean(losses[max(0, end - window) : end]) for end in range(1, len(losses) + 1)]


def difference(one: Numbers, other: Numbers, window: int) -> dict[str, float]:
    """The mean and the largest difference of two runs' smoothed losses."""
    pairs = zip(smoothed(one["losses"], window), smoothed(other["losses"], window), strict=True)
    apart = [abs(a - b) for a, b in pairs]
    return {"mean": statistics.fmean(apart), "largest": max(apart)}


def compare(numbers: Numbers) -> Numbers:
    """Our run against every one of torch.nn.LSTM's on the same batches, and the noise. Needs three runs: ours, then
    torch.nn.LSTM's first with one order and with another.
    """
    ours, first, again, *others = numbers["runs"]
    window = numbers["settings"]["window"]
    noise = difference(first, again, window)
    compared = []
    for peer in (first, *others):
        apart = difference(ours, peer, window)
        within = apart["mean"] <= noise["mean"] and apart["largest"] <= noise["largest"]
        compared.append({"dtype": peer["dtype"], **apart, "within_noise": within})
    return {"noise": noise, "peers": compared}


def report(numbers: Numbers, console: Console) -> None:
    """Print the times and the verdict."""
    runs, layers = numbers["runs"], {(row["module"], row["dtype"]): row for row in numbers["layers"]}
    settings, window = numbers["settings"], numbers["settings"]["window"]
    shape = f"{settings['layers']} layers of {settings['hidden']}, B={settings['batch']}, T={settings['seq']}"
    table = Table(title=f"{numbers['machine']['device']}, {shape}; medians in ms (10th to 90th percentile)")
    for heading in ("module", "dtype", "order", "last loss", "training step", "layers forward", "backward", "both"):
        table.add_column(heading)
    for run in runs:
        row = layers[run["module"], run["dtype"]]
        times = [_times(part) for part in (run["step"], row["forward"], row["backward"], row["both"])]
        last = f"{smoothed(run['losses'], window)[-1]:.4f}"
        table.add_row(run["module"], run["dtype"], str(run["order"]), last, *times)
    console.print(table)
    for message in numbers["warnings"]:
        console.print(f"Warning: {message}")
    result = compare(numbers)
    mean, largest = result["noise"]["mean"], result["noise"]["largest"]
    console.print(f"Noise, {PEER} {runs[1]['dtype']} on other batches: mean {mean:.5f}, largest {largest:.5f}")
    for peer in result["peers"]:
        verdict = "within noise" if peer["within_noise"] else "NOT within noise"
        names = f"{OURS} {runs[0]['dtype']} and {PEER} {peer['dtype']}"
        console.print(f"{names}: mean {peer['mean']:.5f}, largest {peer['largest']:.5f}: {verdict}")


def _times(part: Numbers) -> str:
    return f"{part['median_ms']:.3f} ({part['p10_ms']:.3f} to {part['p90_ms']:.3f})"


def _label(ours: bool, dtype: str) -> str:
    return f"{OURS if ours else PEER} {dtype}"


def plot(numbers: Numbers, path: Path) -> None:
    """Draw the smoothed losses, and below how far they are apart. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    ours, first, again, *others = numbers["runs"]
    window = numbers["settings"]["window"]
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    steps = range(1, len(ours["losses"]) + 1)
    curves = {id(run): smoothed(run["losses"], window) for run in numbers["runs"]}
    for run in (first, *others):
        above.plot(steps, curves[id(run)], label=f"{PEER} {run['dtype']}")
    above.plot(steps, curves[id(again)], color="grey", linewidth=0.8, label=f"{PEER} {again['dtype']}, other batches")
    above.plot(steps, curves[id(ours)], "k--", label=f"{OURS} {ours['dtype']}")
    above.set_ylabel(f"loss, nats per character\n(mean of {window} steps)")
    above.legend()
    for run in (first, *others):
        apart = [abs(a - b) for a, b in zip(curves[id(ours)], curves[id(run)], strict=True)]
        below.plot(steps, apart)
    noise = [abs(a - b) for a, b in zip(curves[id(first)], curves[id(again)], strict=True)]
    below.plot(steps, noise, color="grey", linewidth=0.8)
    below.set_title(f"how far from {OURS}; grey: how far {PEER} is from itself on other batches", fontsize="medium")
    below.set_yscale("log")
    below.set_ylabel("difference")
    below.set_xlabel("training step")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _read(file: Path | None) -> tuple[Tensor, int, Numbers]:
    """The text as numbers of characters, how many characters there are, and what text it is."""
    if file is None:
        from pydoc_data.topics import topics

        text, name = "\n".join(topics[topic] for topic in sorted(topics)), "pydoc_data.topics"
    else:
        text, name = file.read_text(encoding="utf-8"), file.name
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    facts = {"name": name, "characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return torch.tensor([alphabet[character] for character in text]), len(alphabet), facts


def _machine(device: str) -> Numbers:
    facts = {"python": platform.python_version(), "torch": torch.__version__}
    if device == "cpu":
        return {"device": "CPU", **facts}
    cudnn = torch.backends.cudnn.version()
    return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "cudnn": cudnn, **facts}


def measure(
    settings: Settings, dtype: str, peers: Sequence[str], file: Path | None, keep: Callable[[Numbers], None]
) -> Numbers:
    """Every run and every time. keep: given the numbers after each part, so that nothing is lost."""
    text, characters, facts = _read(file)
    if len(text) <= settings.seq:
        raise click.ClickException(f"the text has {len(text)} characters; --seq {settings.seq} needs more")
    text = text.to(settings.device)
    torch.manual_seed(settings.seed)
    initial = CharacterModel(False, characters, settings).state_dict()
    numbers: Numbers = {"settings": asdict(settings), "machine": _machine(settings.device), "text": facts}
    numbers |= {"warnings": [], "runs": [], "layers": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # such as: there is no kernel, a loop runs
        numbers["runs"].append(train(True, dtype, 0, text, initial, settings))
        numbers["layers"].append(time_layers(True, dtype, settings))
    numbers["warnings"] = sorted({str(one.message) for one in caught})
    keep(numbers)
    for index, peer in enumerate(peers):
        for order in (0, 1) if index == 0 else (0,):
            numbers["runs"].append(train(False, peer, order, text, initial, settings))
        numbers["layers"].append(time_layers(False, peer, settings))
        keep(numbers)
    numbers["comparison"] = compare(numbers)
    keep(numbers)
    return numbers


@click.command(help=(__doc__ or "").replace("    python", "\b\n    python", 1))
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="default: cuda where there is one")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="ours; default: bfloat16, on the CPU float32")
@click.option(
    "--peer-dtype", "peers", type=click.Choice(list(DTYPES)), multiple=True, help="default: all; CPU: float32"
)
@click.option("--steps", type=click.IntRange(2), default=500, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seq", type=click.IntRange(1), default=512, show_default=True)
@click.option("--hidden", type=click.IntRange(1), default=128, show_default=True)
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rate", type=float, default=3e-3, show_default=True, help="Adam's learning rate")
@click.option("--seed", type=int, default=0, show_default=True, help="of the initial weights")
@click.option("--window", type=click.IntRange(1), default=20, show_default=True, help="steps of the running mean")
@click.option("--repetitions", type=click.IntRange(2), default=50, show_default=True, help="of the layers alone")
@click.option("--text", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="UTF-8")
@click.option("--json", "out", type=click.Path(path_type=Path), help="write every number, after each run")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="draw the curves: .svg, .png, .pdf")
@click.option("--replot", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="train nothing: read this")
def main(
    device: str | None,
    dtype: str | None,
    peers: tuple[str, ...],
    file: Path | None,
    out: Path | None,
    picture: Path | None,
    replot: Path | None,
    **sizes: Any,
) -> None:
    """Train, compare, print, write and draw."""

    def keep(numbers: Numbers) -> None:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(numbers, indent=1))

    if replot is not None:
        numbers = json.loads(replot.read_text())
        if len(numbers["runs"]) < 3:
            raise click.ClickException(f"{replot}: the measurement was cut short; there is nothing to compare yet")
    else:
        found = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" != found:
            raise click.UsageError("PyTorch finds no GPU here; --device cpu runs the same with small sizes")
        device = device or found
        default = ("float32", "tf32", "float16", "bfloat16") if device == "cuda" else ("float32",)
        dtype = dtype or ("bfloat16" if device == "cuda" else "float32")
        numbers = measure(Settings(device=device, **sizes), dtype, peers or default, file, keep)
    report(numbers, Console(width=180))
    if picture is not None:
        try:
            plot(numbers, picture)
        except ImportError as error:
            hint = "; --replot draws the file of --json where it is installed" if out else ""
            click.echo(f"no plot, for want of matplotlib ({error}){hint}", err=True)


if __name__ == "__main__":
    main()
