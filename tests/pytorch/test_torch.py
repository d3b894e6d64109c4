"""The PyTorch package on the CPU: the operator, its gradients, compiling, autocast."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import Cell, Gate, where
from kernelgen.errors import CellError, ConfigError, ShapeError, TilesmithError
from kernelgen.program.dtypes import numpy_dtype, tolerance
from kernelgen.program.shape import Shape
from kernelgen.torch import DifferentiationError, DoubleBackwardError, reference, register, rnn, step
from kernelgen.torch import operator as operators
from kernelgen.torch.sequences import NOTHING
from kernelgen.verify import reference as numpy_reference
from kernelgen.verify.inputs import random_inputs

pytestmark = pytest.mark.unit

OWN = str(Path(__file__).parents[2] / "examples" / "own_cell.py") + ":FASTGRNN"
SHAPE = Shape(3, 5, 2, 4)
NAMES = ("wx", "r", "b", "initial")


def tensors(cell: str, dtype: torch.dtype = torch.float64, shape: Shape = SHAPE) -> list[Tensor]:
    """wx, r, b and the initial states, as leaves; values that 16 bits hold."""
    inputs = random_inputs(load_cell(cell), shape)
    return [torch.from_numpy(inputs[name].astype(np.float64)).to(dtype).requires_grad_() for name in NAMES]


def weighted(states: Tensor, last: Tensor) -> Tensor:
    """A loss in which every element counts differently."""
    made = [torch.arange(value.numel(), dtype=torch.float64).cos().view(value.shape) for value in (states, last)]
    return (states.double() * made[0]).sum() + (last.double() * made[1]).sum()


def d_loss(states: Tensor, last: Tensor) -> tuple[Any, Any]:
    """The gradients of ``weighted``."""
    leaves = [states.detach().requires_grad_(), last.detach().requires_grad_()]
    made = torch.autograd.grad(weighted(leaves[0], leaves[1]), leaves)
    return made[0].double().numpy(), made[1].double().numpy()


@pytest.mark.parametrize("name", [*cell_names(), pytest.param(OWN, id="own")])
def test_every_cell_agrees_with_the_float64_reference(name: str) -> None:
    cell, leaves = load_cell(name), tensors(name)
    arrays = [leaf.detach().numpy() for leaf in leaves]
    states, last = rnn(*leaves, cell=name)
    expected = numpy_reference.forward(cell, *arrays)
    np.testing.assert_allclose(states.detach(), expected.states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(last.detach(), expected.last, rtol=1e-10, atol=1e-12)

    made = torch.autograd.grad(weighted(states, last), leaves)
    passed = numpy_reference.backward(cell, *arrays, *d_loss(states, last))
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        np.testing.assert_allclose(gradient, getattr(passed, field), rtol=1e-9, atol=1e-11, err_msg=field)

    by_autograd = torch.autograd.grad(weighted(*reference.forward(cell, *leaves)[:2]), leaves, allow_unused=True)
    for gradient, other in zip(made, by_autograd, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_16_bits_round_h_as_kernels_do(name: str, dtype: str) -> None:
    cell, leaves = load_cell(name), tensors(name, getattr(torch, dtype), SHAPE)
    arrays = [leaf.detach().double().numpy() for leaf in leaves]
    states, last = rnn(*leaves, cell=name)
    assert states.dtype is last.dtype is getattr(torch, dtype)
    expected = numpy_reference.forward(cell, *arrays, round_h=numpy_dtype(dtype))
    error = np.linalg.norm(states.detach().double().numpy() - expected.states) / np.linalg.norm(expected.states)
    assert error <= tolerance(dtype, SHAPE.seq)
    made = torch.autograd.grad(weighted(states, last), leaves)
    passed = numpy_reference.backward(cell, *arrays, *d_loss(states, last), round_h=numpy_dtype(dtype))
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        want = getattr(passed, field)
        assert np.linalg.norm(gradient.double().numpy() - want) / np.linalg.norm(want) < 0.02, field


def test_constants_of_a_choice_keep_the_dtype() -> None:
    def chosen(gate: Any, state: Any) -> dict[str, Any]:
        return {"h": gate.a * where(gate.a > 0, 0.1, -0.3)}

    cell = Cell("leaning", "Leaning", "none", ("h",), (Gate("a"),), chosen)
    wx, r, b, initial = tensors("elman")
    states, _ = rnn(wx, r, b, initial, cell)
    expected = numpy_reference.forward(cell, *(leaf.detach().numpy() for leaf in (wx, r, b, initial)))
    assert states.dtype is torch.float64
    np.testing.assert_allclose(states.detach(), expected.states, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gradcheck(name: str) -> None:
    small = Shape(2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda *leaves: rnn(*leaves, cell=name), tensors(name, shape=small))
    wx, r, b, _ = tensors(name, shape=small)
    assert torch.autograd.gradcheck(lambda *leaves: rnn(*leaves, cell=name), (wx, r, b))


@pytest.mark.parametrize(
    ("cut", "clip"), [pytest.param(True, None, id="cut"), pytest.param(False, 0.01, id="clip"), (True, 0.01)]
)
def test_the_recurrent_gradient_can_be_cut_and_clipped(cut: bool, clip: float | None) -> None:
    leaves = tensors("gru")
    states, last = rnn(*leaves, cell="gru", recurrent_cut=cut, recurrent_clip=clip)
    made = torch.autograd.grad(weighted(states, last), leaves)
    arrays = [leaf.detach().numpy() for leaf in leaves]
    cell, outside = load_cell("gru"), d_loss(states, last)
    changed = cell.with_gradient(recurrent_cut=cut, recurrent_clip=clip)
    passed = numpy_reference.backward(changed, *arrays, *outside)
    true = numpy_reference.backward(cell, *arrays, *outside)
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        np.testing.assert_allclose(gradient, getattr(passed, field), rtol=1e-9, atol=1e-11)
    assert not np.allclose(passed.d_wx, true.d_wx)


@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_h_alone_and_gates_computed_again_give_the_same_gradients(name: str) -> None:
    shape = Shape(3, 40, 2, 4)
    leaves = tensors(name, shape=shape)
    states, last = rnn(*leaves, cell=name)
    outside = [torch.arange(value.numel()).view(value.shape).cos().to(value.dtype) for value in (states[0], last)]
    wanted = torch.autograd.grad((states[0], last), leaves, outside)
    for returns in ("hidden", "states"):
        for recompute in (False, True):
            made, end = rnn(*leaves, cell=name, returns=returns, recompute=recompute)  # type: ignore[arg-type]
            assert made.shape == (1 if returns == "hidden" else len(states), *states.shape[1:])
            torch.testing.assert_close(made, states[: len(made)], rtol=0, atol=0)
            for gradient, other in zip(torch.autograd.grad((made[0], end), leaves, outside), wanted, strict=True):
                torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-12)
    with pytest.raises(ConfigError, match="cannot return 'hiden'; did you mean hidden"):
        rnn(*leaves, cell=name, returns="hiden")  # type: ignore[arg-type]


# ---- PyTorch's own checks ----


@pytest.mark.parametrize(("cell", "initial"), [("gru", True), ("lstm", False)])
def test_opcheck(cell: str, initial: bool) -> None:
    leaves = tensors(cell, shape=Shape(2, 2, 1, 2))
    start = leaves[3] if initial else None
    plain = [leaf.detach() for leaf in leaves]
    if not initial:
        torch.library.opcheck(operators._forward, (*plain[:3], None, *NOTHING, cell, False, "nothing", True, 1.0))
    # Both cells together: every state or h alone, with gates kept or computed again.
    for hidden, keep in ((False, "gates"), (True, "states")) if initial else ((False, "states"), (True, "gates")):
        torch.library.opcheck(operators._forward, (*leaves[:3], start, *NOTHING, cell, hidden, keep, False, None))
        made = operators._forward(*leaves[:3], start, *NOTHING, cell, hidden, "gates", False, None)
        states, last, others, gates = (tensor.detach() for tensor in made)
        source = (gates, None) if keep == "gates" else (None, plain[0])
        given = (plain[1], plain[2], plain[3] if initial else None, states, others, *source, *NOTHING)
        torch.library.opcheck(operators._backward, (*given, torch.ones_like(states), None, cell, False, None))
        torch.library.opcheck(operators._backward, (*given, None, torch.ones_like(last), cell, False, 0.5))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_in_one_graph(dynamic: bool) -> None:
    own = register(load_cell(OWN))

    def model(wx: Tensor, r: Tensor, b: Tensor, initial: Tensor, name: str) -> Tensor:
        states, last = rnn(torch.tanh(wx), r, b, initial, name)
        return weighted(states, last)

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for name, loaded in (("lstm", "lstm"), (own, OWN)):
        for shape in (SHAPE, Shape(2, 7, 2, 4)):
            leaves = tensors(loaded, shape=shape)
            made = torch.autograd.grad(compiled(*leaves, name), leaves)
            expected = torch.autograd.grad(model(*leaves, name), leaves)
            for gradient, other in zip(made, expected, strict=True):
                torch.testing.assert_close(gradient, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_float32_parameters_of_16_bit_inputs_get_gradients_that_are_not_rounded(name: str, recompute: bool) -> None:
    narrow = [leaf.detach().to(torch.bfloat16).requires_grad_() for leaf in tensors(name, torch.float32)]
    wide = [narrow[0].detach().requires_grad_(), *(leaf.detach().float().requires_grad_() for leaf in narrow[1:])]
    results = [rnn(*leaves, cell=name, recompute=recompute) for leaves in (narrow, wide)]
    for state, other in zip(*results, strict=True):
        assert state.dtype is torch.bfloat16
        assert torch.equal(state, other)
    made, exact = (
        torch.autograd.grad(states.double().sum(), leaves)
        for (states, _), leaves in zip(results, (narrow, wide), strict=True)
    )
    assert [gradient.dtype for gradient in exact] == [torch.bfloat16, *[torch.float32] * 3]
    for rounded, gradient in zip(made, exact, strict=True):
        torch.testing.assert_close(rounded, gradient.to(torch.bfloat16), rtol=2**-7, atol=1e-3)
    for gradient in exact[1:3]:
        assert not torch.equal(gradient, gradient.to(torch.bfloat16).float())
    with pytest.raises(ShapeError, match=r"b is torch\.float16 on cpu, but Wx is torch\.bfloat16"):
        rnn(narrow[0], wide[1], wide[2].half(), cell=name)


def test_autocast_casts_everything() -> None:
    leaves = tensors("lstm", torch.float32)

    def model(*given: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return rnn(*given)

    states, _ = model(*leaves)
    expected, _ = rnn(*(leaf.to(torch.bfloat16) for leaf in leaves))
    assert states.dtype is torch.bfloat16
    torch.testing.assert_close(states, expected, rtol=0, atol=0)
    made = torch.autograd.grad(states.double().sum(), leaves)
    assert all(gradient.dtype is torch.float32 for gradient in made)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(*leaves)[0]
    torch.testing.assert_close(compiled, states, rtol=0, atol=0)


def test_vmap_runs_one_after_another() -> None:
    wx, r, b, _ = (leaf.detach() for leaf in tensors("lstm"))
    several = torch.stack([wx, 0.5 * wx])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of PyTorch: there is no batching rule
        made = torch.func.vmap(lambda one: rnn(one, r, b)[0])(several)
    for one, states in zip(several, made, strict=True):
        torch.testing.assert_close(states, rnn(one, r, b)[0])


def test_a_second_derivative_is_refused() -> None:
    leaves = tensors("lstm")
    states, _ = rnn(*leaves)
    (first,) = torch.autograd.grad(states.square().sum(), leaves[0], create_graph=True)
    with pytest.raises(DoubleBackwardError, match="cannot be differentiated twice"):
        first.sum().backward()


def test_gates_are_kept_for_gradients_alone() -> None:
    def kept(*given: Any, **options: Any) -> list[tuple[int, ...]]:
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.append(tuple(x.shape)) or x, lambda x: x):
            rnn(*given, **options)
        return shapes

    leaves = tensors("lstm")
    assert (4, SHAPE.batch, SHAPE.seq, SHAPE.heads, SHAPE.head_dim) in kept(*leaves)
    assert kept(*(leaf.detach() for leaf in leaves)) == []
    with torch.no_grad():
        assert kept(*leaves) == []
    plain = [leaf.detach() for leaf in leaves[1:]]
    sizes = (SHAPE.batch, SHAPE.seq)
    again = kept(leaves[0], *plain, recompute=True)
    assert (4, *sizes, SHAPE.heads, SHAPE.head_dim) not in again
    assert tuple(leaves[0].shape) in again


# ---- cells of one's own, steps, mistakes ----


def test_a_cell_from_a_file_learns() -> None:
    torch.manual_seed(0)
    wx, r, b, _ = (leaf.detach() for leaf in tensors(OWN, torch.float32))
    target = 0.5 * torch.rand(SHAPE.batch, SHAPE.seq, SHAPE.heads, SHAPE.head_dim)
    parameters = [r.requires_grad_(), b.requires_grad_()]
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    losses = []
    for _ in range(30):
        states, _ = rnn(wx, *parameters, cell=load_cell(OWN))
        loss = (states[0] - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_steps_make_a_sequence(name: str) -> None:
    wx, r, b, states = (leaf.detach() for leaf in tensors(name))
    every, _ = rnn(wx, r, b, states, name)
    for t in range(SHAPE.seq):
        states = step(wx[:, t], r, b, states, name)
        torch.testing.assert_close(states[0], every[0, :, t])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_step_puts_the_new_states_where_it_is_told(name: str) -> None:
    wx, r, b, states = (leaf.detach() for leaf in tensors(name))
    expected = step(wx[:, 0], r, b, states, name)
    for out in (torch.zeros_like(states), torch.zeros_like(states).float(), states):
        assert step(wx[:, 0], r, b, states, name, out=out) is out
        torch.testing.assert_close(out, expected.to(out.dtype), rtol=0, atol=0)
    again = torch.compile(step, fullgraph=True, backend="aot_eager")(wx[:, 1], r, b, states, name, out=states)
    assert again is states
    torch.testing.assert_close(states, step(wx[:, 1], r, b, expected, name))
    with pytest.raises(ShapeError, match=r"out must be \[S, B, H, D\] = "):
        step(wx[:, 0], r, b, states, name, out=states[:, :1])
    with pytest.raises(DifferentiationError, match="out= has no gradient"):
        step(wx[:, 0].requires_grad_(), r, b, states, name, out=states)


def test_mistakes_are_told() -> None:
    wx, r, b, initial = tensors("lstm")
    for given, message in [
        ((wx[0], r, b), "five axes"),
        ((wx[:, :0], r, b), "empty"),
        ((wx, r[:3], b), r"R of lstm must be \[G_rec, H, D, D\] = \[4, 2, 4, 4\], not \[3, 2, 4, 4\]"),
        ((wx, r, b, initial[:, :1]), "states of lstm must be"),
        ((wx, r.float(), b), "R is torch.float32 on cpu, but Wx is torch.float64"),
        ((wx.int(), r.int(), b.int()), "takes bfloat16, float16, float32, float64"),
    ]:
        with pytest.raises(ShapeError, match=message):
            rnn(*given)
    with pytest.raises(CellError, match="did you mean lstm"):
        rnn(wx, r, b, cell="lstn")
    with pytest.raises(CellError, match="clipped"):
        rnn(wx, r, b, recurrent_clip=-1.0)


def test_what_is_no_tensor_is_told() -> None:
    wx, r, b, initial = (leaf.detach() for leaf in tensors("lstm"))
    given: dict[str, Any] = {"wx": wx, "r": r, "b": b, "states": initial}
    for name, value, message in [
        ("b", None, "b must be a torch.Tensor, not NoneType; for no bias give zeros, torch.zeros"),
        ("r", None, "r must be a torch.Tensor, not NoneType; it cannot be left out"),
        ("wx", wx.numpy(), "wx must be a torch.Tensor, not ndarray; torch.as_tensor"),
        ("states", [initial], "states must be a torch.Tensor, not list"),
    ]:
        with pytest.raises(TilesmithError, match=message) as caught:
            rnn(**{**given, name: value})
        assert isinstance(caught.value, TypeError)
    with pytest.raises(TypeError, match="wx must be a torch"):
        step(None, r, b)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"a step must have the four axes \[B, G_in, H, D\]"):
        step(wx, r, b)


def test_without_pytorch_the_extra_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; import kernelgen.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError: kernelgen.torch needs PyTorch" in done.stderr
    assert 'pip install "tilesmith[torch]"' in done.stderr


def test_importing_leaves_the_compiler_alone() -> None:
    """torch.compile's packages take longer to import than all of ours."""
    code = "import sys, kernelgen.torch; print([m for m in ('torch._dynamo', 'torch._inductor') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
