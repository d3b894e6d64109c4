"""The steps that are timed, system by system, with random inputs, and how far off their results are.

A forward step runs without gradients and gives h. A training step runs forward and backward and gives h and the
gradients: of Wx, R and b; of a module those of its input and of all its parameters.

Errors are relative, ||made - wanted|| / ||wanted||, against the same recurrence in float64, the worst of all outputs.
That is computed for the first and last sequence and head alone: while errors are looked at, the gradient of h is zero
for all other sequences, so that the gradients of R and b are those of these sequences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kernelgen.cells import load_cell
from kernelgen.torch import GRU, LSTM, reference, rnn
from kernelgen.torch.parameters import parameter_gradients
from kernelgen.torch.step import torch_step
from peers.rows import Row
from peers.timing import Outputs

MODULES: Mapping[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
"""torch.nn's modules of the cells that it has."""
OURS: Mapping[str, Any] = {"lstm": LSTM, "gru": GRU}
COMPILED_SEQ = 64
"""Steps of the loop that is compiled."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""A GPU is measured; without one, whether a step is right can still be seen."""
UNROLLED = 8
"""Of them, those that are compiled as one function."""


class Step(ABC):
    """One system at one row. dtype: a name of torch's. loop: what runs the recurrence, from Wx, R and b to h.
    why_eager: the reason why training is not captured in a graph; empty where it is."""

    why_eager = ""

    def __init__(self, row: Row, dtype: str) -> None:
        self.row, self.dtype = row, getattr(torch, dtype)
        self._generator = torch.Generator(DEVICE).manual_seed(0)
        picked = sorted({0, row.batch - 1})
        self._sequences = torch.tensor(picked, device=DEVICE)
        self._heads = torch.tensor(sorted({0, row.heads - 1}), device=DEVICE)
        self._random: Tensor | None = None

    @property
    @abstractmethod
    def leaves(self) -> Mapping[str, Tensor]:
        """What gradients are taken of."""

    @property
    @abstractmethod
    def d_h(self) -> Tensor:
        """The gradient of h, and its axis of sequences."""

    @property
    @abstractmethod
    def sequences_axis(self) -> int:
        """That of h."""

    @abstractmethod
    def hidden(self) -> Tensor:
        """h of all steps."""

    @abstractmethod
    def wanted(self, *, training: bool) -> Outputs:
        """The sampled outputs in float64."""

    @abstractmethod
    def sampled(self, made: Outputs) -> Outputs:
        """The same part of what a step gave."""

    def forward(self) -> Outputs:
        """A step without gradients."""
        with torch.no_grad():
            return {"h": self.hidden()}

    def training(self) -> Outputs:
        """Forward and backward."""
        leaves = self.leaves
        h = self.hidden()
        gradients = torch.autograd.grad(h, list(leaves.values()), self.d_h)
        return {"h": h.detach(), **{f"d_{name}": value for name, value in zip(leaves, gradients, strict=True)}}

    def sample(self) -> None:
        """Make the gradient of h zero for all sequences that are not compared."""
        self._random = self.d_h.clone()
        kept = self._random.index_select(self.sequences_axis, self._sequences)
        self.d_h.zero_().index_copy_(self.sequences_axis, self._sequences, kept)

    def restore(self) -> None:
        """Make it random again for all."""
        assert self._random is not None
        self.d_h.copy_(self._random)
        self._random = None

    def error(self, made: Outputs, *, training: bool) -> float:
        """The worst relative error. Raises ArithmeticError where an output is not finite."""
        for name, value in made.items():
            if not bool(value.isfinite().all()):
                raise ArithmeticError(f"{name} has elements that are not finite, or were not written")
        parts, wanted = self.sampled(made), self.wanted(training=training)
        return max(_relative(parts[name], wanted[name]) for name in wanted)

    def drawn(self, *sizes: int, scale: float = 1.0) -> Tensor:
        """Normal random numbers of the step's dtype."""
        values = torch.randn(sizes, generator=self._generator, device=DEVICE, dtype=self.dtype)
        return values.mul_(scale)


class Recurrence(Step):
    """A recurrence from Wx [B, T, G_in, H, D], R and b. loop: gives h [B, T, H, D]."""

    sequences_axis = 0

    def __init__(self, row: Row, dtype: str, loop: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__(row, dtype)
        self.cell, self._loop = load_cell(row.cell), loop
        cell, heads, dim = self.cell, row.heads, row.head_dim
        self._wx = self.drawn(row.batch, row.seq, len(cell.input_gates), heads, dim).requires_grad_()
        scale = cell.gain * dim**-0.5
        self._r = self.drawn(len(cell.recurrent_gates), heads, dim, dim, scale=scale).requires_grad_()
        self._b = self.drawn(len(cell.bias_gates), heads, dim).requires_grad_()
        self._d_h = self.drawn(row.batch, row.seq, heads, dim)

    @property
    def leaves(self) -> Mapping[str, Tensor]:
        return {"wx": self._wx, "r": self._r, "b": self._b}

    @property
    def d_h(self) -> Tensor:
        return self._d_h

    def hidden(self) -> Tensor:
        return self._loop(self._wx, self._r, self._b)

    def sampled(self, made: Outputs) -> Outputs:
        axes = {"h": 2, "d_wx": 3, "d_r": 1, "d_b": 1}
        return {name: self._sequence(name, value).index_select(axes[name], self._heads) for name, value in made.items()}

    def wanted(self, *, training: bool) -> Outputs:
        states, gates, r, b = self._float64
        if not training:
            return {"h": states[0]}
        d_h = self._d_h.index_select(0, self._sequences).index_select(2, self._heads).double()
        d_states = torch.cat([d_h[None], torch.zeros_like(states[1:])])
        d_gates, _ = reference.backward(self.cell, r, b, None, states, gates, d_states, None)
        d_r, d_b = parameter_gradients(self.cell, d_gates, None, states[0], r.dtype, b.dtype)
        d_wx = d_gates[list(self.cell.input_gates)].permute(1, 2, 0, 3, 4)
        return {"h": states[0], "d_wx": d_wx, "d_r": d_r, "d_b": d_b}

    def _sequence(self, name: str, value: Tensor) -> Tensor:
        return value.index_select(0, self._sequences) if name in ("h", "d_wx") else value

    @cached_property
    def _float64(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States and gates of the sampled sequences and heads, with the R and b of these."""
        with torch.no_grad():
            wx = self._wx.index_select(0, self._sequences).index_select(3, self._heads).double()
            r, b = (value.index_select(1, self._heads).double() for value in (self._r, self._b))
            states, _, gates = reference.forward(self.cell, wx, r, b, keep_gates=True)
        assert gates is not None
        return states, gates, r, b


class Module(Step):
    """A layer of a torch.nn module, or of a module in its place: x [T, B, D] to h [T, B, D], its product included."""

    sequences_axis = 1

    def __init__(self, row: Row, dtype: str, kind: Any, like: Any) -> None:
        super().__init__(row, dtype)
        dim = row.head_dim
        torch.manual_seed(0)
        self._module = kind(dim, dim).to(DEVICE, self.dtype)
        self._like = like
        self._x = self.drawn(row.seq, row.batch, dim).requires_grad_()
        self._d_h = self.drawn(row.seq, row.batch, dim)

    @property
    def leaves(self) -> Mapping[str, Tensor]:
        return {"x": self._x, **dict(self._module.named_parameters())}

    @property
    def d_h(self) -> Tensor:
        return self._d_h

    def hidden(self) -> Tensor:
        output: Tensor = self._module(self._x)[0]
        return output

    def sampled(self, made: Outputs) -> Outputs:
        return {
            name: value.index_select(1, self._sequences) if name in ("h", "d_x") else value
            for name, value in made.items()
        }

    def wanted(self, *, training: bool) -> Outputs:
        exact = self._like(self.row.head_dim, self.row.head_dim).to(DEVICE).double()
        exact.load_state_dict(self._module.state_dict())
        x = self._x.detach().index_select(1, self._sequences).double().requires_grad_()
        h = exact(x)[0]
        if not training:
            return {"h": h.detach()}
        leaves = {"x": x, **dict(exact.named_parameters())}
        d_h = self._d_h.index_select(1, self._sequences).double()
        gradients = torch.autograd.grad(h, list(leaves.values()), d_h)
        return {"h": h.detach(), **{f"d_{name}": value for name, value in zip(leaves, gradients, strict=True)}}


def ours(row: Row, dtype: str) -> Step:
    """tilesmith: rnn(), or its module in the place of torch.nn's. Raises KeyError where there is none."""
    if row.module:
        return Module(row, dtype, OURS[row.cell], MODULES[row.cell])
    return Recurrence(row, dtype, lambda wx, r, b: rnn(wx, r, b, cell=row.cell, returns="hidden")[0][0])


def torch_nn(row: Row, dtype: str) -> Step:
    """torch.nn's module, whose kernels are cuDNN's: one head of D units. Raises KeyError where there is none."""
    return Module(row, dtype, MODULES[row.cell], MODULES[row.cell])


def compiled_loop(row: Row, dtype: str) -> Step:
    """A loop over steps in PyTorch, torch.compile'd, UNROLLED steps a function. row.seq: a multiple of that."""
    cell = load_cell(row.cell)
    step = torch_step(cell)
    dim = row.head_dim

    def some(wx: Tensor, weights: Tensor, bias: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Steps of wx [n, H, B, G_in, D]; h of each, then the states after the last."""
        biases = dict(zip(cell.bias_gates, bias.float().unsqueeze(2).unbind(), strict=True))
        values, made = list(state), []
        for inputs in wx.unbind():
            products = torch.matmul(values[0].to(wx.dtype), weights).float().unflatten(2, (-1, dim)).unbind(2)
            sums: list[Any] = [biases.get(index, 0.0) for index in range(len(cell.gates))]
            for index, value in zip(cell.input_gates, inputs.float().unbind(2), strict=True):
                sums[index] = sums[index] + value
            for index, value in zip(cell.recurrent_gates, products, strict=True):
                sums[index] = sums[index] + value
            values = step(sums, values)
            made.append(values[0].to(wx.dtype))
        return torch.stack(made), *values

    compiled = torch.compile(some, dynamic=False)

    def loop(wx: Tensor, r: Tensor, b: Tensor) -> Tensor:
        inner = wx.permute(1, 3, 0, 2, 4)
        weights = r.permute(1, 3, 0, 2).reshape(row.heads, dim, -1)
        state = [wx.new_zeros((row.heads, row.batch, dim), dtype=torch.float32)] * len(cell.states)
        parts = []
        for start in range(0, row.seq, UNROLLED):
            part, *state = compiled(inner[start : start + UNROLLED], weights, b, *state)
            parts.append(part)
        return torch.cat(parts).permute(2, 0, 1, 3)

    return Recurrence(row, dtype, loop)


def flash_rnn(row: Row, dtype: str) -> Step:
    """FlashRNN's fused kernels, called as its users call them. Raises ImportError where it is not installed."""
    from flashrnn import flashrnn  # of the checkout that is on the path

    def loop(wx: Tensor, r: Tensor, b: Tensor) -> Tensor:
        states: Tensor = flashrnn(wx, r, b, function=row.cell, backend="cuda_fused", dtype=dtype)[0]
        return states[0]

    made = Recurrence(row, dtype, loop)
    # To try would end the process: what it waits for, while the stream is captured, is the whole device.
    made.why_eager = "its backward pass cannot be captured"
    return made


def _relative(made: Tensor, wanted: Tensor) -> float:
    difference = (made.double() - wanted.double()).norm()
    return float(difference / wanted.double().norm().clamp_min(1e-30))
