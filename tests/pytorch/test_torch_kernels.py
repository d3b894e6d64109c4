"""The kernels behind the PyTorch operator: the autograd function of CUDA tensors on the CPU, through the emulator."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from emulated_engine import Emulated, WithoutChains
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell
from kernelgen.device import gpu
from kernelgen.device.executor import Launches
from kernelgen.errors import InfeasibleError, ShapeError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import dtype_info, numpy_dtype, tolerance
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.task import Direction
from kernelgen.torch import GRU, LSTM, checkpoint, double_backward, kernels, passes, reference, rnn, step
from kernelgen.torch.device import DeviceEngine
from kernelgen.tuning.selection import candidates, compiled
from kernelgen.verify import reference as numpy_reference
from kernelgen.verify.inputs import random_inputs

OWN = str(Path(__file__).parents[2] / "examples" / "own_cell.py") + ":FASTGRNN"
NAMES = ("wx", "r", "b", "initial")


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CPU tensors take the path of CUDA tensors."""
    engine = Emulated()
    monkeypatch.setitem(passes.ENGINES, "cpu", engine)
    monkeypatch.setattr(kernels, "_warned", set())
    return engine


def tensors(cell: str, shape: Shape) -> list[Tensor]:
    """wx, r, b and the initial states, as leaves."""
    inputs = random_inputs(load_cell(cell), shape)
    dtype = getattr(torch, dtype_info(shape.dtype).stored)
    return [torch.from_numpy(inputs[name].astype(np.float64)).to(dtype).requires_grad_() for name in NAMES]


def close(made: Tensor, wanted: Any, limit: float) -> None:
    error = np.linalg.norm(made.detach().double().numpy() - wanted) / np.linalg.norm(wanted)
    assert error <= limit, f"relative error {error:.1e}, at most {limit:.1e}"


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("name", "dtype", "initial"),
    [
        ("lstm", "bfloat16", True),
        ("gru", "float16", False),
        pytest.param(OWN, "bfloat16", True, id="own"),
        ("lstm", "float32", True),
        ("gru", "float32", False),
        ("lstm", "tf32", True),
    ],
)
def test_the_path_of_cuda_tensors_gives_the_references_gradients(
    emulated: Emulated, name: str, dtype: str, initial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", dtype == "tf32")
    cell, shape = load_cell(name), Shape(3, 4, 2, 16, dtype)
    leaves = tensors(name, shape)[: 4 if initial else 3]
    states, last = rnn(*leaves, cell=name)
    draw = np.random.default_rng(1)
    d_states, d_last = (draw.uniform(-1, 1, value.shape).astype(numpy_dtype(dtype)) for value in (states, last))
    given = [torch.from_numpy(array.astype(np.float64)).to(states.dtype) for array in (d_states, d_last)]
    made = torch.autograd.grad((states, last), leaves, given)
    assert emulated.ran == [("forward", "gates"), ("backward", "gates")]
    assert set(emulated.dtypes) == {dtype}

    arrays = [leaf.detach().double().numpy() for leaf in leaves] + ([] if initial else [None])
    kind = numpy_dtype(dtype)
    expected = numpy_reference.forward(cell, *arrays, round_h=kind)
    limit = tolerance(dtype, shape.seq)
    close(states, expected.states, limit)
    close(last, expected.last, limit)
    passed = numpy_reference.backward(
        cell, *arrays, d_states, d_last, round_h=kind, round_saved=kind, round_d_gates=kind
    )
    wanted = [passed.d_wx, passed.d_r, passed.d_b, passed.d_initial]
    for gradient, want in zip(made, wanted, strict=False):
        close(gradient, want, 2 * limit)  # the saved gates are a kernel's, off by its own error


@pytest.mark.emulated
def test_a_checkpointed_pass_runs_kernels_on_chunks(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = tensors("lstm", Shape(3, 5, 2, 16))
    expected = rnn(*leaves, returns="hidden")
    given = [torch.ones_like(one) for one in expected]
    wanted = torch.autograd.grad(expected, leaves, given)
    emulated.ran.clear()
    expecting: set[tuple[Direction, str]] = set()
    monkeypatch.setattr(
        emulated, "expect", lambda cell, shape, direction, *_, **__: expecting.add((direction, shape.save))
    )
    made = rnn(*leaves, returns="hidden", checkpoint=3)
    assert expecting == {("forward", "gates"), ("backward", "hidden")}
    found = torch.autograd.grad(made, leaves, given)
    again = [("forward", "gates"), ("backward", "hidden")]
    assert emulated.ran == [("forward", "hidden"), ("forward", "hidden"), *again, *again]
    for result, other in zip([*made, *found], [*expected, *wanted], strict=True):
        close(result, other.detach().double().numpy(), 0.02)


@pytest.mark.emulated
def test_gradients_of_gradients_come_from_the_reference_beside_kernels(emulated: Emulated) -> None:
    leaves = tensors("lstm", Shape(3, 4, 2, 16, "float32"))

    def penalty(states: Tensor) -> tuple[Tensor, ...]:
        slopes = torch.autograd.grad(states.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), leaves)

    with double_backward(True):
        found = penalty(rnn(*leaves)[0])
    # The first gradient is the reference's; where it reads the states, its own goes back through the kernel.
    assert emulated.ran == [("forward", "gates"), ("backward", "gates")]
    for one, wanted in zip(found, penalty(reference.forward(load_cell("lstm"), *leaves)[0]), strict=True):
        close(one, wanted.double().numpy(), 1e-4)


@pytest.mark.emulated
def test_a_step_is_one_kernel_that_writes_where_it_is_told(emulated: Emulated) -> None:
    wx, r, b, initial = (leaf.detach() for leaf in tensors("lstm", Shape(3, 1, 2, 16)))
    expected = step(wx[:, 0], r, b, initial)
    assert emulated.ran == [("forward", "hidden")]
    apart = torch.empty_like(initial)
    assert step(wx[:, 0], r, b, initial, out=apart) is apart
    assert torch.equal(apart, expected)
    room = torch.empty((2, 3, 2, 32), dtype=wx.dtype)  # not contiguous, and what lies between stays
    room[..., 16:] = 7
    step(wx[:, 0], r, b, initial, out=room[..., :16])
    assert torch.equal(room[..., :16], expected)
    assert torch.all(room[..., 16:] == 7)
    assert step(wx[:, 0], r, b, initial, out=initial) is initial
    assert torch.equal(initial, expected)
    assert emulated.ran == [("forward", "hidden")] * 4


@pytest.mark.emulated
def test_directions_are_heads_of_one_kernel(emulated: Emulated) -> None:
    torch.manual_seed(0)
    peer = torch.nn.LSTM(3, 16, bidirectional=True, proj_size=4)
    module = LSTM(3, 16, bidirectional=True, proj_size=4, dtype=torch.bfloat16)
    module.load_state_dict(peer.state_dict())
    x = torch.randn(4, 3, 3)
    made = module(x.to(torch.bfloat16))[0]
    made.sum().backward()
    assert emulated.ran == [("forward", "gates"), ("backward", "hidden")]
    close(made, peer(x)[0].detach().double().numpy(), 0.02)


@pytest.mark.emulated
@pytest.mark.parametrize("under_autocast", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_float32_parameters_of_16_bit_kernels_get_sums_that_are_not_rounded(
    emulated: Emulated, name: str, under_autocast: bool
) -> None:
    narrow = [leaf.detach() for leaf in tensors(name, Shape(3, 4, 2, 16, "bfloat16"))]
    leaves = [leaf.clone().requires_grad_() for leaf in narrow]
    wide = [leaf.to(torch.float32).requires_grad_() for leaf in narrow[1:]]
    first = narrow[0].to(torch.float32 if under_autocast else torch.bfloat16).requires_grad_()
    found = []
    for own in (leaves, [first, *wide]):
        with torch.autocast("cpu", torch.bfloat16, enabled=under_autocast):
            states, last = rnn(*own, cell=name)
        assert states.dtype is last.dtype is torch.bfloat16
        found.append((states, last, torch.autograd.grad((states.float().sum() + last.float().sum()), own)))
    assert set(emulated.dtypes) == {"bfloat16"}
    (states, last, gradients), (same, end, exact) = found
    assert torch.equal(states, same)
    assert torch.equal(last, end)
    assert [gradient.dtype for gradient in exact] == [first.dtype, *[torch.float32] * 3]
    for rounded, gradient in zip(gradients, exact, strict=True):
        assert torch.equal(rounded, gradient.to(torch.bfloat16))
    for gradient in exact[1:3]:  # of R and b
        assert (gradient != gradient.to(torch.bfloat16).float()).float().mean() > 0.9


@pytest.mark.emulated
def test_layers_in_a_wavefront_share_kernels(emulated: Emulated) -> None:
    torch.manual_seed(0)
    peer = torch.nn.LSTM(3, 16, 2)
    module = LSTM(3, 16, 2, wavefront=2, dtype=torch.bfloat16)
    module.load_state_dict(peer.state_dict())
    x = torch.randn(6, 3, 3)
    with torch.no_grad():
        made = module(x.to(torch.bfloat16))[0]
    assert emulated.ran == [("forward", "hidden")] * 4  # three chunks, and one more for the second layer
    close(made, peer(x)[0].detach().double().numpy(), 0.02)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("kind", "options", "initial"),
    [
        (LSTM, {"heads": 2, "num_layers": 2}, True),
        (LSTM, {"heads": 2, "num_layers": 2, "bias": False, "batch_first": True}, False),
        (GRU, {}, False),
    ],
)
def test_layers_by_a_plan_are_those_of_the_reference(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch, kind: Any, options: dict[str, Any], initial: bool
) -> None:
    """In training and without gradients, of either order of the input's axes."""
    torch.manual_seed(0)
    units, layers = 16 * options.get("heads", 1), options.get("num_layers", 1)
    module = kind(8, units, dtype=torch.bfloat16, **options)
    x = torch.randn((3, 5, 8) if module.batch_first else (5, 3, 8), dtype=torch.bfloat16, requires_grad=True)
    states = [torch.randn(layers, 3, units, dtype=torch.bfloat16, requires_grad=True) for _ in "hc"]
    hx = tuple(states) if initial else None
    leaves = [x, *(states if initial else ()), *module.parameters()]
    found = []
    for engine in (emulated, None):
        monkeypatch.setitem(passes.ENGINES, "cpu", engine)
        output, (h, *_) = module(x, hx)
        weights = [torch.ones_like(output), torch.full_like(h, 0.5)]
        gradients = torch.autograd.grad((output, h), leaves, weights)
        with torch.no_grad():
            again, (last, *_) = module(x, hx)
        assert output.is_contiguous()
        assert torch.equal(output, again)
        assert torch.equal(h, last)
        found.append([output, h, *gradients])
    assert [name for name, _ in emulated.ran] == ["forward"] * layers + ["backward"] * layers + ["forward"] * layers
    for one, other in zip(*found, strict=True):
        close(one, other.detach().double().numpy(), 2e-2)


class Noted(TorchDispatchMode):
    """The operators of PyTorch that are called, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function.overloadpacket).removeprefix("aten.")
        if not function.is_view and name not in ("_unsafe_view", "detach"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "sizes"), [("weight_hh_l1", (64, 8)), ("weight_ih_l1", (48, 16)), ("bias_hh_l1", (1,))]
)
def test_parameters_that_no_kernel_may_read_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, sizes: tuple[int, ...]
) -> None:
    monkeypatch.setitem(passes.ENGINES, "cpu", Idle())
    module, x = LSTM(8, 16, 2), torch.randn(3, 2, 8)
    module(x)
    setattr(module, name, torch.nn.Parameter(torch.zeros(sizes)))
    if name == "bias_hh_l1":
        module.bias_ih_l1 = torch.nn.Parameter(torch.zeros(sizes))
    with pytest.raises(ShapeError, match="the gates of layer 1 have"):
        module(x)


def called(run: Callable[[], Any]) -> list[str]:
    """What PyTorch is called for where it ran before."""
    run()
    with Noted() as noted:
        run()
    return noted.names


@pytest.mark.unit
def test_an_eager_pass_calls_no_more_than_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call costs the host microseconds, which is what is waited for at short sequences."""
    monkeypatch.setitem(passes.ENGINES, "cpu", Idle())

    wx, r, b, initial = (t.detach() for t in tensors("lstm", Shape(2, 3, 1, 16, "bfloat16")))
    out = torch.empty_like(initial)
    assert called(lambda: rnn(wx, r, b, initial, returns="hidden")) == ["new_empty"] * 2
    token = wx[:, 0].contiguous()
    assert called(lambda: step(token, r, b, initial)) == ["new_empty"]
    assert called(lambda: step(token, r, b, initial, out=out)) == []
    assert called(lambda: step(token, r, b, out, out=out)) == ["new_empty", "copy_"]
    x = torch.randn(3, 2, 8).bfloat16()
    kernel = ["new_empty"] * 2
    for batch_first, before, after in ((True, ["addmm"], []), (False, ["baddbmm"], ["transpose_copy"])):
        module = LSTM(8, 16, 2, batch_first=batch_first).bfloat16()
        with torch.no_grad():
            found = called(lambda module=module: module(x))
        assert found == [*before, *kernel, "addmm", *kernel, "cat", *after]

    def train() -> None:
        module.zero_grad()
        output, _ = module(x)
        output.backward(out_gradient)

    out_gradient = torch.ones(3, 2, 16).bfloat16()
    layer, back = ["addmm", *["new_empty"] * 4], [*["new_empty"] * 4, "mm"]
    of_biases = ["new_empty_strided", "copy_"] * 2  # one gradient for two parameters, of which each gets its own
    assert called(train) == ["clone", *layer, *layer, "cat", "transpose_copy", "clone", *back, "mm", *back, *of_biases]


@pytest.mark.unit
def test_a_pass_that_is_one_chain_makes_no_calls_but_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(passes.ENGINES, "cpu", IdleChains())
    x = torch.randn(3, 2, 8).bfloat16()
    for batch_first, directions in ((True, 1), (False, 1), (True, 2), (False, 2)):
        module = LSTM(8, 16, 2, batch_first=batch_first, bidirectional=directions == 2).bfloat16()
        out_gradient = torch.ones(3, 2, directions * 16).bfloat16()

        def infer(module: LSTM = module) -> None:
            with torch.no_grad():
                module(x)

        def train(module: LSTM = module, out_gradient: Tensor = out_gradient) -> None:
            module.zero_grad()
            output, _ = module(x)
            output.backward(out_gradient)

        assert called(infer) == ["new_empty"] * 2
        back = ["new_empty"] * (1 + 2 * 3)  # nor copies of gradients
        assert called(train) == ["new_empty"] * 3 + back
        module.dropout = 0.5
        assert called(train) == ["new_empty"] * 4 + ["bernoulli_"] + back


@pytest.mark.unit
def test_a_chunk_calls_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(passes.ENGINES, "cpu", Idle())

    r, b = torch.randn(4, 1, 16, 16), torch.zeros(4, 1, 16)

    def called(x: Tensor, w: Tensor | None) -> Counter[str]:
        with Noted() as noted:
            options = ("lstm", True, 2, False, None)
            states, _, before = checkpoint._run_forward(x, w, None, r, b, None, None, None, *options)
            checkpoint._run_backward(x, w, None, r, b, None, None, before, torch.ones_like(states), None, *options)
        return Counter(noted.names)

    wx = torch.randn(2, 16, 4, 1, 16)
    # Forward Wx in and h out; backward Wx and the gradient of h in, the sums of R and b, and the gradient of Wx out.
    assert called(wx, None) - called(wx[:, :8], None) == {"copy_": 4 * 5, "add_": 4}
    x, w = torch.randn(2, 16, 1, 8), torch.randn(1, 64, 8)
    # Instead of Wx and its gradient products; that of the weights takes x, in rows.
    again = {"copy_": 4 * 2, "bmm": 4 * 3, "mm": 4, "clone": 4, "add_": 4 * 2}
    assert called(x, w) - called(x[:, :8], w) == again


@pytest.mark.emulated
@pytest.mark.parametrize(("name", "initial"), [("gru", False), ("slstm", True)])
def test_h_alone_and_gates_computed_again(emulated: Emulated, name: str, initial: bool) -> None:
    shape = Shape(3, 7, 1, 16)
    leaves = tensors(name, shape)[: 4 if initial else 3]
    states, last = rnn(*leaves, cell=name)
    random = np.random.default_rng(2)
    outside = [torch.from_numpy(random.uniform(-1, 1, v.shape)).to(v.dtype) for v in (states[0], last)]
    wanted = torch.autograd.grad((states[0], last), leaves, outside)
    for recompute, emulated.computes_gates in ((False, True), (True, False), (True, True)):
        emulated.ran.clear()
        passes._backward_runs.clear()
        made, end = rnn(*leaves, cell=name, returns="hidden", recompute=recompute)
        torch.testing.assert_close(made[0], states[0], rtol=0, atol=0)
        assert emulated.ran == [("forward", "states" if recompute else "gates")]
        gradients = torch.autograd.grad((made[0], end), leaves, outside)
        kept = "hidden" if len(load_cell(name).states) > 1 else "gates"
        how = "gates recomputed" if recompute and emulated.computes_gates else kept
        assert emulated.ran[1:] == [("backward", how)]
        for gradient, other in zip(gradients, wanted, strict=True):
            close(gradient, other.double().numpy(), 0.03 if recompute else 1e-30)
    with torch.no_grad():
        rnn(*leaves, cell=name, returns="hidden")
    assert emulated.ran[-1][1] == ("hidden" if len(load_cell(name).states) > 1 else "states")


@pytest.mark.emulated
@pytest.mark.parametrize(("name", "recompute"), [("lstm", False), ("gru", False), ("gru", True)])
def test_resets_and_lengths_reach_the_kernels(emulated: Emulated, name: str, recompute: bool) -> None:
    cell, shape, dtype = load_cell(name), Shape(5, 6, 1, 16), numpy_dtype("bfloat16")
    leaves = tensors(name, shape)
    resets, lengths = np.zeros((5, 6), np.bool_), np.array([2, 6, 0, 5, 4])
    resets[1, 3] = resets[3, 4] = resets[0, 4] = True
    arrays = [leaf.detach().double().numpy() for leaf in leaves]
    own: dict[str, Any] = {"resets": resets, "lengths": lengths}
    expected = numpy_reference.forward(cell, *arrays, round_h=dtype, **own)
    draw = np.random.default_rng(1)
    outside = [draw.uniform(-1, 1, each.shape) for each in (expected.states[:1], expected.last)]
    passed = numpy_reference.backward(
        cell, *arrays, *outside, round_h=dtype, round_saved=dtype, round_d_gates=dtype, **own
    )
    with torch.no_grad():
        for b, length in enumerate(lengths):
            leaves[0][b, length:] = torch.nan
    emulated.computes_gates = not recompute or name == "lstm"
    given = {"resets": torch.from_numpy(resets), "lengths": torch.from_numpy(lengths)}
    states, last = rnn(*leaves, cell=name, returns="hidden", recompute=recompute, **given)
    close(states, expected.states[:1], tolerance("bfloat16", shape.seq))
    close(last, expected.last, tolerance("bfloat16", shape.seq))
    made = torch.autograd.grad((states, last), leaves, [torch.from_numpy(each).bfloat16() for each in outside])
    assert [direction for direction, _ in emulated.ran] == ["forward", "backward"]
    for gradient, want in zip(made, (passed.d_wx, passed.d_r, passed.d_b, passed.d_initial), strict=True):
        close(gradient, want, 0.03 if recompute else 0.02)


@pytest.mark.emulated
def test_strided_tensors_last_alone_and_no_gradients(emulated: Emulated) -> None:
    shape = Shape(3, 4, 2, 16)
    wx, r, b, initial = tensors("lstm", shape)
    strided = wx.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    whole = torch.empty(r.numel() + 1, dtype=r.dtype)  # r at an odd address
    shifted = whole[1:].view_as(r).copy_(r.detach()).requires_grad_()
    made = torch.autograd.grad(rnn(strided, shifted, b, initial)[1].float().sum(), (strided, shifted))
    wanted = torch.autograd.grad(rnn(wx, r, b, initial)[1].float().sum(), (wx, r))
    for gradient, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=0)
    with torch.no_grad():
        rnn(wx, r, b, initial)
    assert emulated.ran[-1] == ("forward", "states")


@pytest.mark.emulated
def test_a_forward_kernel_with_memory_of_its_own(emulated: Emulated) -> None:
    leaves = tensors("gru", Shape(3, 4, 1, 32))
    wanted = torch.autograd.grad(rnn(*leaves, cell="gru")[0].float().sum(), leaves)
    emulated.forward_schedule = "grid"
    passes._forward_runs.clear()
    made = torch.autograd.grad(rnn(*leaves, cell="gru")[0].float().sum(), leaves)
    for gradient, other in zip(made, wanted, strict=True):
        close(gradient, other.double().numpy(), 0.02)


class Nothing(WithoutChains):
    """An engine without a kernel."""

    def kernel(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> Any:
        raise InfeasibleError("these limits clash")

    def expect(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> None: ...


@pytest.mark.unit
@pytest.mark.parametrize(
    ("dtype", "message"),
    [("bfloat16", "these limits clash"), ("float32", "these limits clash"), ("float64", "these limits clash")],
)
def test_where_no_kernel_fits_the_reference_runs_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, dtype: str, message: str
) -> None:
    leaves = [leaf.detach().to(getattr(torch, dtype)).requires_grad_() for leaf in tensors("lstm", Shape(2, 3, 1, 4))]
    expected, _ = rnn(*leaves)
    monkeypatch.setitem(passes.ENGINES, "cpu", Nothing())
    monkeypatch.setattr(kernels, "_warned", set())
    with pytest.warns(RuntimeWarning, match=message):
        states, _ = rnn(*leaves)
    torch.testing.assert_close(states, expected, rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rnn(*leaves)


class Idle(WithoutChains):
    """An engine whose kernels do nothing; remembers which it was asked for."""

    program = None

    def __init__(self) -> None:
        self.asked: list[tuple[Direction, int]] = []
        self.expected: list[tuple[Shape, Direction]] = []
        self.found: list[tuple[Shape, Direction]] = []

    def kernel(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> Idle:
        self.asked.append((direction, shape.seq))
        self.found.append((shape, direction))
        return self

    def expect(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> None:
        self.expected.append((shape, direction))

    def bind(self, names: tuple[str, ...]) -> Callable[[Sequence[Tensor | None]], None]:
        return lambda arrays: None


class IdleChains(Idle):
    """The same, with chains."""

    def product(self, *_: Any) -> Any:
        return self

    def moved_rows(self, *_: Any) -> Any:
        return self

    def dropped_elements(self, *_: Any) -> Any:
        return self

    def chain(self, *_: Any) -> Callable[[Sequence[Tensor | None]], None]:
        return lambda arrays: None


@pytest.mark.unit
def test_a_pass_is_prepared_once_for_each_form_and_every_call_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Idle()
    monkeypatch.setitem(passes.ENGINES, "cpu", engine)
    wanted: list[tuple[Direction, int]] = []
    for seq in (3, 5):
        wx, r, b, initial = tensors("lstm", Shape(2, seq, 1, 16))
        for _ in range(2):
            rnn(wx, r, b, initial)[0].sum().backward()
        wanted += [("forward", seq), ("backward", seq)]
        assert engine.asked == wanted
        for _ in range(2):
            with pytest.raises(ShapeError, match="R of lstm"):
                rnn(wx, r[:3], b, initial)
            with pytest.raises(ShapeError, match=r"b is torch\.float16"):
                rnn(wx, r, b.half(), initial)
    assert engine.asked == wanted


@pytest.mark.unit
@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("returns", ["states", "hidden"])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_a_backward_pass_asks_for_is_expected_before_the_forward_pass_asks(
    monkeypatch: pytest.MonkeyPatch, name: str, returns: Any, recompute: bool
) -> None:
    engine = Idle()
    monkeypatch.setitem(passes.ENGINES, "cpu", engine)
    leaves = tensors(name, Shape(2, 7, 1, 24))
    with torch.no_grad():
        rnn(*leaves, cell=name, returns=returns, recompute=recompute)
    assert not engine.expected
    states, _ = rnn(*leaves, cell=name, returns=returns, recompute=recompute)
    assert engine.found[-1] not in engine.expected
    states.sum().backward()
    assert engine.expected == [engine.found[-1]]


@pytest.mark.unit
def test_what_is_expected_compiles_once_and_beside_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass is asked for while the backward one compiles: that goes on when the forward pass has come."""
    forward_is_there, made = threading.Event(), []

    def pretend(cell: Cell, shape: Shape, profile: Any, direction: Direction, **_: bool) -> Any:
        made.append(direction)
        if direction == "backward":
            assert forward_is_there.wait(60)
            if shape.head_dim == 8:
                raise InfeasibleError("these limits clash")
        return SimpleNamespace(arguments=lambda *_: SimpleNamespace(numbers={}, workspaces=())), ()

    loaded = SimpleNamespace(prepare=lambda device: None, at=lambda shape, lanes: None)
    monkeypatch.setattr("kernelgen.tuning.selection.compiled", pretend)
    monkeypatch.setattr(gpu, "device", lambda index: SimpleNamespace(profile=lambda: None))
    monkeypatch.setattr(gpu, "selected", lambda index: nullcontext())
    monkeypatch.setattr(
        "kernelgen.torch.device.Executable",
        lambda program, cubins: SimpleNamespace(program=program, **vars(loaded)),
    )
    engine, cell = DeviceEngine(), load_cell("elman")
    for dim in (4, 8):
        forward_is_there.clear()
        shape = Shape(2, 5, 1, dim)
        for _ in range(2):
            engine.expect(cell, shape, "backward", 0)
        engine.kernel(cell, shape, "forward", 0)
        forward_is_there.set()
        for seq in (5, 6):  # served by the same kernels
            if dim == 8:
                with pytest.raises(InfeasibleError, match="these limits clash"):
                    engine.kernel(cell, replace(shape, seq=seq), "backward", 0)
            else:
                engine.kernel(cell, replace(shape, seq=seq), "backward", 0)
        engine.expect(cell, shape, "backward", 0)  # known by now
        assert sorted(made) == ["backward"] * (2 if dim == 8 else 1) + ["forward"]  # what failed is tried once more
        made.clear()


@pytest.mark.emulated
@pytest.mark.parametrize(("cut", "clip"), [(True, None), (False, 0.02), (True, 0.02)])
def test_the_recurrent_gradient_is_cut_and_clipped_by_kernels(
    emulated: Emulated, cut: bool, clip: float | None
) -> None:
    cell, shape, kind = load_cell("gru"), Shape(3, 5, 1, 16), numpy_dtype("bfloat16")
    leaves = tensors("gru", shape)
    states, last = rnn(*leaves, cell="gru", recurrent_cut=cut, recurrent_clip=clip)
    outside = [torch.ones_like(states), torch.full_like(last, 0.5)]
    made = torch.autograd.grad((states, last), leaves, outside)
    assert [kind for kind, _ in emulated.ran] == ["forward", "backward"]
    arrays = [value.detach().double().numpy() for value in (*leaves, *outside)]
    rounded = {"round_h": kind, "round_saved": kind, "round_d_gates": kind}
    passed = numpy_reference.backward(cell.with_gradient(recurrent_cut=cut, recurrent_clip=clip), *arrays, **rounded)
    limit = tolerance("bfloat16", shape.seq)
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        close(gradient, getattr(passed, field), 2 * limit)
    exact = numpy_reference.backward(cell, *arrays, **rounded)
    assert np.linalg.norm(exact.d_wx - passed.d_wx) > 0.1 * np.linalg.norm(exact.d_wx)


@pytest.mark.unit
def test_a_tuned_configuration_comes_first(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, shape, profile = load_cell("elman"), Shape(2, 64, 1, 16, save="states"), load_profile("h200")
    broken = tmp_path / "broken.yaml"
    broken.write_text("format: something else\n")
    monkeypatch.setenv("TILESMITH_CONFIGS", f"{broken}:{tuned.parent}")
    with pytest.warns(RuntimeWarning, match="broken.yaml is left out"):
        found = candidates(cell, shape, profile, "forward")
    assert found[0].tuned == tuned
    assert found[1].tuned is None
    for other, profile_name, direction in [
        (Shape(3, 64, 1, 16), "h200", "forward"),
        (Shape(2, 64, 1, 16), "a100-40gb", "forward"),
        (Shape(2, 64, 1, 16), "h200", "backward"),
    ]:
        assert candidates(cell, other, load_profile(profile_name), direction)[0].tuned is None


@pytest.mark.compiled
def test_the_kernels_of_an_unseen_shape_compile_without_spills() -> None:
    cell, profile = load_cell("lstm"), load_profile("h200")
    shape = Shape(16, 1024, 12, 64, save="gates")
    for direction, entries in (
        ("forward", ["tilesmith_forward"]),
        ("backward", ["tilesmith_backward", "tilesmith_parameter_gradients"]),
    ):
        program, binaries = compiled(cell, shape, profile, direction)
        assert [binary.entry for binary in binaries] == entries == [call.source.entry for call in program.calls]
        assert all(binary.report.spills == 0 for binary in binaries)


@pytest.mark.unit
def test_the_engine_of_cuda_tensors_hands_over_addresses_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    kernel = SimpleNamespace(start=lambda stream, config, *arguments: started.append((stream, config, arguments)))
    engine = DeviceEngine()
    loads = []

    def load(cell: Cell, shape: Shape, direction: Direction, device: int, *_: bool) -> Any:
        loads.append((shape.batch, direction))
        source = Source("", "k", "sm_80", ("r", "initial", "states", "batch", "seq"))
        program = Program(direction, KernelCall(source, LaunchRule(("batch", "1", "1"), 32, 0)))
        launches = Launches(((kernel, "how", source.arguments),))  # type: ignore[arg-type]
        return SimpleNamespace(program=program, at=lambda shape, lanes: launches)

    monkeypatch.setattr(engine, "_load", load)
    monkeypatch.setattr("kernelgen.device.gpu.selected", lambda index: nullcontext())
    monkeypatch.setattr("torch._C._cuda_getCurrentRawStream", lambda device: 7, raising=False)
    monkeypatch.setattr("kernelgen.device.executor.stream_of", lambda handle: f"stream {handle}")
    r, states = torch.zeros(1), torch.zeros(1)
    cell = load_cell("elman")
    for shape in (Shape(2, 5, 1, 4), Shape(2, 9, 1, 4), Shape(3, 9, 1, 4)):
        engine.kernel(cell, shape, "forward", 0).bind(("initial", "states", "r"))((None, states, r))
    assert started[0] == ("stream 7", "how", (r.data_ptr(), 0, states.data_ptr(), 2, 5))
    assert started[1][2][-1] == 9
    assert isinstance(started[0][2][3], np.int32)
    assert loads == [(2, "forward"), (3, "forward")]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("before", "calls"),
    [
        (0, ["set 2"]),  # no GPU yet
        (2, []),
        (1, ["push 2", "pop"]),
    ],
)
def test_a_gpu_is_selected_only_where_it_is_not_current(
    monkeypatch: pytest.MonkeyPatch, before: int, calls: list[str]
) -> None:
    done, status = [], SimpleNamespace(value=0)
    driver = SimpleNamespace(
        cuCtxGetCurrent=lambda: (status, before),
        cuCtxSetCurrent=lambda context: done.append(f"set {context}") or (status,),
        cuCtxPushCurrent=lambda context: done.append(f"push {context}") or (status,),
        cuCtxPopCurrent=lambda: done.append("pop"),
    )
    monkeypatch.setattr(gpu, "require_driver", lambda: driver)
    monkeypatch.setattr(gpu, "primary_context", lambda index: index)
    monkeypatch.setattr(gpu, "_primary", lambda index: (driver, index, index))
    with gpu.selected(2):
        assert "pop" not in done
    assert done == calls


@pytest.mark.unit
def test_what_was_expected_in_vain_holds_no_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even until the next collection, which may come while a graph is captured."""
    engine, cell, shape = DeviceEngine(), load_cell("lstm"), Shape(16, 8, 1, 512, recompute=True)
    monkeypatch.setattr(gpu, "device", lambda index: SimpleNamespace(profile=lambda: load_profile("h200")))
    engine.expect(cell, shape, "backward", 0)

    def ask() -> weakref.ref[Tensor]:
        tensor = torch.zeros(1)
        try:
            engine.kernel(cell, shape, "backward", 0)
        except InfeasibleError:
            return weakref.ref(tensor)
        raise AssertionError("there is no such kernel")

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()


@pytest.mark.unit
def test_that_there_is_no_kernel_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = DeviceEngine(), []

    def load(cell: Cell, shape: Shape, direction: Direction, device: int, *_: bool) -> Any:
        asked.append(shape)
        raise InfeasibleError("these limits clash")

    def ask(seq: int) -> weakref.ref[Tensor]:
        tensor = torch.zeros(1)
        with pytest.raises(InfeasibleError, match="these limits clash"):
            engine.kernel(load_cell("elman"), Shape(2, seq, 1, 4), "forward", 0)
        return weakref.ref(tensor)

    monkeypatch.setattr(engine, "_load", load)
    callers = [ask(5), ask(6)]
    gc.collect()
    assert [caller() for caller in callers] == [None, None]  # an error that is kept would hold its callers' tensors
    assert len(asked) == 1
