"""Every schedule in turn behind one recurrence: the same results and gradients. In the emulator, and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from emulated_engine import Emulated
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.device import gpu
from kernelgen.errors import InfeasibleError
from kernelgen.program.dtypes import numpy_dtype, tolerance
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import schedule_names
from kernelgen.torch import passes, rnn
from kernelgen.torch.device import DeviceEngine
from kernelgen.tuning import selection
from kernelgen.tuning.plan import plan
from kernelgen.verify import reference
from kernelgen.verify.inputs import random_inputs

SMALL = Shape(20, 5, 1, 32)
"""What every schedule takes, of several tiles of sequences."""

PASSES = [
    *((name, "resident_backward") for name in schedule_names("forward", "cuda")),
    *(("resident", name) for name in schedule_names("backward", "cuda") if name != "resident_backward"),
]


def expected(cell: str, shape: Shape) -> tuple[dict[str, Any], Any, list[Any]]:
    """Inputs, h's gradient, and what the float64 reference makes of them: h, and the gradients of Wx, R and b."""
    kind, inputs = numpy_dtype(shape.dtype), random_inputs(load_cell(cell), shape)
    d_h = np.random.default_rng(1).uniform(-1, 1, (1, shape.batch, shape.seq, shape.heads, shape.head_dim)).astype(kind)
    given: dict[str, Any] = {name: inputs[name] for name in ("wx", "r", "b")}
    passed = reference.forward(load_cell(cell), **given, round_h=kind)
    back = reference.backward(load_cell(cell), **given, d_states=d_h, round_h=kind, result=passed)
    return given, d_h, [passed.states[0], back.d_wx, back.d_r, back.d_b]


def check(cell: str, shape: Shape, device: str) -> None:
    given, d_h, wanted = expected(cell, shape)
    dtype = getattr(torch, shape.dtype)

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array.astype(np.float64)).to(device, dtype)

    leaves = [tensor(array).requires_grad_() for array in given.values()]
    wx, r, b = leaves
    states, _ = rnn(wx, r, b, cell=cell, returns="hidden")
    made = [states[0], *torch.autograd.grad(states, leaves, tensor(d_h))]
    for name, found, value in zip(("h", "d_wx", "d_r", "d_b"), made, wanted, strict=True):
        error = np.linalg.norm(found.detach().double().cpu().numpy() - value) / np.linalg.norm(value)
        limit = tolerance(shape.dtype, shape.seq) * (1 if name == "h" else 2)  # gates are saved rounded
        assert error <= limit, f"{name}: relative error {error:.1e}, at most {limit:.1e}"


@pytest.mark.emulated
@pytest.mark.parametrize(("forward", "backward"), PASSES)
def test_schedules_agree_in_the_emulator(forward: str, backward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Emulated()
    engine.forward_schedule, engine.backward_schedule = forward, backward
    monkeypatch.setitem(passes.ENGINES, "cpu", engine)
    check("lstm", SMALL, "cpu")
    assert [direction for direction, _ in engine.ran] == ["forward", "backward"]


@pytest.mark.gpu
@pytest.mark.skipif(
    gpu.why_no_gpu() is not None or not torch.cuda.is_available(), reason="needs a GPU and PyTorch for it"
)
@pytest.mark.parametrize("cell", ["lstm", "gru", "slstm"])
@pytest.mark.parametrize("size", [(20, 32), (64, 256)], ids=str)
@pytest.mark.parametrize(("forward", "backward"), PASSES)
def test_schedules_agree_on_a_gpu(
    forward: str, backward: str, size: tuple[int, int], cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forced(*given: Any, direction: Direction, schedules: Sequence[str] | None = None, **more: Any) -> Any:
        names = [forward if direction == "forward" else backward]
        return plan(*given, direction=direction, schedules=names, **more)

    shape = Shape(size[0], 33, 2, size[1])
    profile = gpu.device(0).profile()
    directions: tuple[tuple[Direction, str, str], ...] = (
        ("forward", forward, "gates"),
        ("backward", backward, "hidden"),
    )
    for direction, name, save in directions:
        there = Shape(shape.batch, shape.seq, shape.heads, shape.head_dim, save=save)
        try:
            plan(load_cell(cell), there, profile, schedules=[name], direction=direction, top=1)
        except InfeasibleError as error:
            pytest.skip(str(error))
    monkeypatch.setattr(selection, "plan", forced)
    monkeypatch.setattr(selection, "_measured", lambda *given: [])
    monkeypatch.setitem(passes.ENGINES, "cuda", DeviceEngine())
    check(cell, shape, "cuda")
