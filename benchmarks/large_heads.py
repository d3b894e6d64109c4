"""Measure heads of thousands of units on this GPU: each schedule that runs them, a step's products alone, and torch.nn.

    python benchmarks/large_heads.py                                # the rows of docs/lab/streaming.md, about a minute
    python benchmarks/large_heads.py --row 4096:16 --schedule library

A row is the units of an LSTM of one head, and the batch. Ours is `kernelgen.torch.rnn` in bfloat16, which takes Wx;
torch.nn's LSTM, in float16, makes its input product too. "chosen" is what rnn takes by itself; of the others every pass
is of that schedule. "step" is microseconds of the forward pass for each step, "of the product" how many times a product
of a step alone (torch.mm, which reads R each time); training is forward and backward with all gradients, "of the
products" how many times its products alone: two a step, and dR. Errors are of the last h, of the gradient of Wx and of
that of R, relative, in the norm, against autograd through a float64 loop. "same" says whether two runs gave the same
bits. Medians.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import click
import torch
from peers.calls import milliseconds
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.errors import TilesmithError
from kernelgen.schedules import all_schedules
from kernelgen.torch import passes, rnn
from kernelgen.torch.device import DeviceEngine
from kernelgen.torch.reference import forward
from kernelgen.tuning import selection

ROWS = ("4096:16", "4096:256", "8192:16", "8192:256")
SCHEDULES = ("chosen", "library", "streaming")
COLUMNS = ("1 x D, B", "by", "step, us", "of the product", "training, ms", "of the products")
COLUMNS += ("error of h", "of d_wx", "of d_r", "same")


@dataclass(frozen=True)
class Task:
    """An LSTM of one head, with its inputs and the gradient of h after every step."""

    wx: Tensor
    r: Tensor
    b: Tensor
    d_h: Tensor

    @classmethod
    def draw(cls, units: int, batch: int, seq: int) -> Task:
        """Random numbers; weights as torch.nn draws them."""
        torch.manual_seed(0)
        like: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
        wx = torch.randn(batch, seq, 4, 1, units, **like)
        r = (torch.rand(4, 1, units, units, **like) * 2 - 1) * units**-0.5
        b = torch.randn(4, 1, units, **like) * 0.1
        return cls(wx, r, b, torch.randn(1, batch, seq, 1, units, **like))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Units, batch, steps."""
        batch, seq, _, _, units = self.wx.shape
        return units, batch, seq

    def forward(self) -> Tensor:
        """h after every step, without gradients."""
        with torch.no_grad():
            return rnn(self.wx, self.r, self.b, cell="lstm", returns="hidden")[0]

    def train(self) -> tuple[Tensor, ...]:
        """h after every step, and the gradients of Wx, R and b."""
        given = [each.requires_grad_() for each in (self.wx, self.r, self.b)]
        h = rnn(*given, cell="lstm", returns="hidden")[0]
        return (h.detach(), *torch.autograd.grad(h, given, self.d_h))

    def reference(self) -> tuple[Tensor, ...]:
        """The same in float64; of the gradients those of Wx and R."""
        wx, r, b = (each.detach().double().requires_grad_() for each in (self.wx, self.r, self.b))
        states, _, _ = forward(load_cell("lstm"), wx, r, b)
        return (states[:1].detach(), *torch.autograd.grad(states[:1], (wx, r), self.d_h.double()))

    def products(self) -> tuple[float, float]:
        """Milliseconds of a step's product forward, and of all products of training."""
        units, batch, seq = self.sizes
        r, h = self.r.detach().view(4 * units, units), self.d_h[0, :, 0, 0]
        gates = torch.randn(batch * seq, 4 * units, device="cuda", dtype=torch.bfloat16)
        hidden = torch.randn(batch * seq, units, device="cuda", dtype=torch.bfloat16)
        ahead = milliseconds(lambda: torch.mm(h, r.T), calls=20, rounds=5)
        back = milliseconds(lambda: torch.mm(gates[:batch], r), calls=20, rounds=5)
        weights = milliseconds(lambda: torch.mm(gates.T, hidden), calls=2, rounds=3)
        return ahead, seq * (ahead + back) + weights


PLAN = selection.plan
"""As it is where nothing is forced."""


def force(schedule: str) -> None:
    """Have every pass that is planned from now on made by a schedule; "chosen": by the model's choice."""

    def planned(*given: Any, direction: Any = "forward", **options: Any) -> Any:
        names = [one.name for one in all_schedules(direction) if one.name.removesuffix("_backward") == schedule]
        return PLAN(*given, direction=direction, schedules=names, **options)

    selection.plan = PLAN if schedule == "chosen" else planned
    passes.ENGINES["cuda"] = DeviceEngine()


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="UNITS:BATCH")
@click.option("--schedule", "schedules", multiple=True, default=SCHEDULES)
@click.option("--seq", default=None, type=int, help="steps; 64, or 32 of heads of 8192 units or more")
@click.option("--errors/--no-errors", default=True)
def main(rows: tuple[str, ...], schedules: tuple[str, ...], seq: int | None, errors: bool) -> None:
    """Measure and print."""
    console = Console(width=170)
    table = Table(title=f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {datetime.date.today()}")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        units, batch = map(int, row.split(":"))
        task = Task.draw(units, batch, seq or (64 if units < 8192 else 32))
        step, training = task.products()
        table.add_row(f"{units}, {batch}", "products alone", f"{1e3 * step:.1f}", "", f"{training:.2f}", "")
        exact = task.reference() if errors else ()
        for schedule in schedules:
            force(schedule)
            table.add_row("", schedule, *measured(task, step, training, exact))
        exact = ()
        torch.cuda.empty_cache()
        ahead, learning = peer(units, batch, task.sizes[2])
        table.add_row("", "torch.nn, float16", f"{1e3 * ahead / task.sizes[2]:.1f}", "", f"{learning:.2f}", "")
        torch.cuda.empty_cache()
    console.print(table)


def measured(task: Task, step: float, training: float, exact: tuple[Tensor, ...]) -> list[str]:
    """The cells of a row, or why there are none. step, training: what the products take. exact: the reference."""
    seq = task.sizes[2]
    try:
        ahead = milliseconds(task.forward, calls=3, rounds=5) / seq
        learning = milliseconds(task.train, calls=2, rounds=5)
    except TilesmithError as error:
        return [str(error)[:60]]
    made, again = task.train(), task.train()
    found = [f"{1e3 * ahead:.1f}", f"{ahead / step:.2f}", f"{learning:.2f}", f"{learning / training:.2f}"]
    for got, want in zip(made, exact, strict=False):
        some = (slice(None), slice(None), -1) if want is exact[0] else slice(None)
        found.append(f"{((got[some] - want[some]).norm() / want[some].norm()).item():.1e}")
    found += [""] * (7 - len(found))
    return [*found, "yes" if all(map(torch.equal, made, again)) else "no"]


def peer(units: int, batch: int, seq: int) -> tuple[float, float]:
    """Milliseconds of torch.nn's LSTM, forward and in training."""
    like: dict[str, Any] = {"device": "cuda", "dtype": torch.float16}
    layer = torch.nn.LSTM(units, units, **like)
    x = torch.randn(seq, batch, units, **like, requires_grad=True)
    given, d_h = (x, *layer.parameters()), torch.randn(seq, batch, units, **like)

    def ahead() -> Tensor:
        with torch.no_grad():
            return layer(x)[0]  # type: ignore[no-any-return]

    def train() -> object:
        return torch.autograd.grad(layer(x)[0], given, d_h)

    return milliseconds(ahead, calls=3, rounds=3), milliseconds(train, calls=2, rounds=3)


if __name__ == "__main__":
    main()
