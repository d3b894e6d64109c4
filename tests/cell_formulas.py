"""Every cell of the library once more, written by hand in PyTorch from its paper: what the tests compare with.

A step takes the parts of every gate and the old states, and returns the new states. ``run`` runs a sequence, so that
autograd gives the gradients of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, sigmoid, tanh

from kernelgen.cells.language import Cell


def elman(s: list[Tensor], a: Tensor) -> list[Tensor]:
    return [tanh(a)]


def elman_relu(s: list[Tensor], a: Tensor) -> list[Tensor]:
    return [torch.relu(a)]


def gru(s: list[Tensor], r: Tensor, z: Tensor, n: Tensor, g: Tensor) -> list[Tensor]:
    new = tanh(n + sigmoid(r) * g)
    return [(1 - sigmoid(z)) * new + sigmoid(z) * s[0]]


def memory(s: list[Tensor], i: Tensor, f: Tensor, z: Tensor, o: Callable[[Tensor], Tensor]) -> list[Tensor]:
    c = f * s[1] + i * z
    return [o(c), c]


def lstm(s: list[Tensor], i: Tensor, f: Tensor, g: Tensor, o: Tensor) -> list[Tensor]:
    return memory(s, sigmoid(i), sigmoid(f), tanh(g), lambda c: sigmoid(o) * tanh(c))


def lstm_peephole(s: list[Tensor], i: Any, f: Any, g: Any, o: Any, pi: Any, pf: Any, po: Any) -> list[Tensor]:
    i, f = sigmoid(i + pi * s[1]), sigmoid(f + pf * s[1])
    return memory(s, i, f, tanh(g), lambda c: sigmoid(o + po * c) * tanh(c))


def lstm_nig(s: list[Tensor], f: Tensor, g: Tensor, o: Tensor, pf: Tensor, po: Tensor) -> list[Tensor]:
    f = sigmoid(f + pf * s[1])
    return memory(s, torch.ones_like(f), f, tanh(g), lambda c: sigmoid(o + po * c) * tanh(c))


def lstm_nfg(s: list[Tensor], i: Tensor, g: Tensor, o: Tensor, pi: Tensor, po: Tensor) -> list[Tensor]:
    i = sigmoid(i + pi * s[1])
    return memory(s, i, torch.ones_like(i), tanh(g), lambda c: sigmoid(o + po * c) * tanh(c))


def lstm_nog(s: list[Tensor], i: Tensor, f: Tensor, g: Tensor, pi: Tensor, pf: Tensor) -> list[Tensor]:
    return memory(s, sigmoid(i + pi * s[1]), sigmoid(f + pf * s[1]), tanh(g), tanh)


def lstm_niaf(s: list[Tensor], i: Any, f: Any, g: Any, o: Any, pi: Any, pf: Any, po: Any) -> list[Tensor]:
    i, f = sigmoid(i + pi * s[1]), sigmoid(f + pf * s[1])
    return memory(s, i, f, g, lambda c: sigmoid(o + po * c) * tanh(c))


def lstm_noaf(s: list[Tensor], i: Any, f: Any, g: Any, o: Any, pi: Any, pf: Any, po: Any) -> list[Tensor]:
    i, f = sigmoid(i + pi * s[1]), sigmoid(f + pf * s[1])
    return memory(s, i, f, tanh(g), lambda c: sigmoid(o + po * c) * c)


def lstm_cifg(s: list[Tensor], i: Tensor, g: Tensor, o: Tensor, pi: Tensor, po: Tensor) -> list[Tensor]:
    i = sigmoid(i + pi * s[1])
    return memory(s, i, 1 - i, tanh(g), lambda c: sigmoid(o + po * c) * tanh(c))


def slstm(s: list[Tensor], i: Tensor, f: Tensor, z: Tensor, o: Tensor) -> list[Tensor]:
    """With both exponentials written out, as the paper has them."""
    return stabilised(s, i, f, z, o, least=1)


def slstm_xlstm(s: list[Tensor], i: Tensor, f: Tensor, z: Tensor, o: Tensor) -> list[Tensor]:
    return stabilised(s, i, f, z, o, least=None)


def stabilised(s: list[Tensor], i: Tensor, f: Tensor, z: Tensor, o: Tensor, least: float | None) -> list[Tensor]:
    _, c, n, m = s
    forget = torch.nn.functional.logsigmoid(f) + m
    new_m = torch.where(n == 0, i, torch.maximum(i, forget))
    # Before the first input there is nothing to keep, whatever the stabiliser says.
    keep, add = torch.where(n == 0, 0.0, torch.exp(forget - new_m)), torch.exp(i - new_m)
    c = keep * c + add * tanh(z)
    n = keep * n + add if least is None else torch.clamp(keep * n + add, min=least)
    return [sigmoid(o) * c / n, c, n, new_m]


def mgu(s: list[Tensor], f: Tensor, n: Tensor, g: Tensor) -> list[Tensor]:
    return [(1 - sigmoid(f)) * s[0] + sigmoid(f) * tanh(n + sigmoid(f) * g)]


def ugrnn(s: list[Tensor], u: Tensor, c: Tensor) -> list[Tensor]:
    return [sigmoid(u) * s[0] + (1 - sigmoid(u)) * tanh(c)]


def ligru(s: list[Tensor], z: Tensor, n: Tensor) -> list[Tensor]:
    return [sigmoid(z) * s[0] + (1 - sigmoid(z)) * torch.relu(n)]


def janet(s: list[Tensor], f: Tensor, c: Tensor) -> list[Tensor]:
    return [sigmoid(f) * s[0] + (1 - sigmoid(f - 1)) * tanh(c)]


def ltc(s: list[Tensor], f: Tensor, w: Tensor, a: Tensor) -> list[Tensor]:
    return [(s[0] + sigmoid(f) * a) / (1 + torch.log1p(torch.exp(w)) + sigmoid(f))]


def cfc(s: list[Tensor], f: Tensor, g: Tensor, k: Tensor) -> list[Tensor]:
    return [sigmoid(-f) * tanh(g) + (1 - sigmoid(-f)) * tanh(k)]


def alrnn(s: list[Tensor], a: Tensor, d: Tensor, p: Tensor) -> list[Tensor]:
    z = d * s[1] + a
    return [torch.where(p > 0, torch.relu(z), z), z]


def bilinear(s: list[Tensor], x: Tensor, g: Tensor) -> list[Tensor]:
    return [x * g]


STEPS: dict[str, Callable[..., list[Tensor]]] = {
    function.__name__: function
    for function in (
        alrnn, bilinear, cfc, elman, elman_relu, gru, janet, ligru, lstm, lstm_cifg, lstm_nfg, lstm_niaf, lstm_nig,
        lstm_noaf, lstm_nog, lstm_peephole, ltc, mgu, slstm, slstm_xlstm, ugrnn,
    )
}  # fmt: skip


def run(
    cell: Cell,
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor,
    *,
    step: Callable[..., Sequence[Tensor]] | None = None,
) -> Tensor:
    """All states of a sequence, [S, B, T, H, D]; arguments as for kernelgen.verify.reference.forward."""
    step = step or STEPS[cell.name]
    state = list(initial)
    history = []
    for t in range(wx.shape[1]):
        sums = []
        for index in range(len(cell.gates)):
            total = torch.zeros_like(state[0])
            if index in cell.recurrent_gates:
                total = total + torch.einsum("hdp,bhp->bhd", r[cell.recurrent_gates.index(index)], state[0])
            if index in cell.input_gates:
                total = total + wx[:, t, cell.input_gates.index(index)]
            if index in cell.bias_gates:
                total = total + b[cell.bias_gates.index(index)]
            sums.append(total)
        state = list(step(state, *sums))
        history.append(torch.stack(state))
    return torch.stack(history, dim=2)
