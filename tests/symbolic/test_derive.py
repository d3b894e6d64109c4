"""The derived backward step and the backward reference, against PyTorch's autograd and finite differences."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from cell_formulas import STEPS, run
from expressions import random_expression

from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import (
    Cell,
    Gate,
    exp,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    sqrt,
    tanh,
    where,
)
from kernelgen.cells.language import abs as absolute
from kernelgen.emit.numpy import FUNCTIONS, NumpyPrinter, numpy_backward, numpy_step
from kernelgen.emit.text import backward_equations
from kernelgen.errors import CellError, ShapeError
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import derive
from kernelgen.verify import reference
from kernelgen.verify.inputs import random_inputs

pytestmark = pytest.mark.unit

Array = np.ndarray[Any, Any]


def units(cell: Cell, count: int, seed: int = 3) -> tuple[Array, Array, Array]:
    """Gates, states and gradients of the new states of ``count`` units, away from zero states."""
    source = np.random.default_rng(seed)
    gates = source.normal(0, 2, (len(cell.gates), count))
    states = np.stack([source.uniform(*cell.range(name), count) for name in cell.states])
    return gates, states, source.normal(size=states.shape)


@pytest.mark.parametrize("name", cell_names())
def test_the_backward_step_is_that_of_autograd(name: str) -> None:
    cell = load_cell(name)
    gates, states, d_next = units(cell, 2000)
    states[:, :300] = 0
    leaves = [torch.from_numpy(array).requires_grad_() for array in (*gates, *states)]
    new = torch.stack(STEPS[name](leaves[len(gates) :], *leaves[: len(gates)]))
    np.testing.assert_allclose(
        np.stack(numpy_step(cell)(list(gates), list(states))), new.detach(), rtol=1e-12, atol=1e-15
    )
    expected = torch.autograd.grad(new, leaves, torch.from_numpy(d_next), allow_unused=True)
    d_gates, d_states = numpy_backward(cell)(list(gates), list(states), list(d_next))
    for got, want in zip((*d_gates, *d_states), expected, strict=True):
        np.testing.assert_allclose(got, 0 if want is None else want, rtol=1e-10, atol=1e-12)


def differences(cell: Cell, gates: Array, states: Array, d_next: Array) -> list[Array]:
    """The gradients of sum(d_next * new states) by central differences."""
    step, width = numpy_step(cell), 1e-6

    def loss(values: Array) -> Array:
        new = step(list(values[: len(gates)]), list(values[len(gates) :]))
        return np.sum(d_next * np.stack(new), axis=0)

    values = np.concatenate([gates, states])
    found = []
    for index in range(len(values)):
        move = np.zeros_like(values)
        move[index] = width
        found.append((loss(values + move) - loss(values - move)) / (2 * width))
    return found


@pytest.mark.parametrize("name", cell_names())
def test_the_backward_step_is_the_slope_of_the_step(name: str) -> None:
    cell = load_cell(name)
    gates, states, d_next = units(cell, 500)
    d_gates, d_states = numpy_backward(cell)(list(gates), list(states), list(d_next))
    for got, want in zip((*d_gates, *d_states), differences(cell, gates, states, d_next), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-8)


def everything(gate: Any, state: Any) -> dict[str, Any]:
    """Every function of the language, with values that are shared, divided, chosen and of all powers."""
    shared = sqrt(1 + gate.a**2) / (2 + absolute(state.h)) + exp(-absolute(gate.b))
    chosen = where((gate.a > state.c) & ~(gate.b <= 0), shared**3, -shared * tanh(gate.b) ** 2)
    return {
        "h": chosen / (1 + state.c**2) ** 2 + maximum(gate.a, minimum(gate.b, 0.3)) + sign(gate.a) * relu(state.h),
        "c": log(2 + shared) * sigmoid(chosen) ** 0.3 - (gate.a - gate.b) / (1 + shared**2) ** 1.5 + shared**gate.b,
    }


EVERYTHING = Cell("everything", "All", "none", ("h", "c"), (Gate("a"), Gate("b")), everything)


def test_every_function_and_power_is_differentiated() -> None:
    gates, states, d_next = units(EVERYTHING, 2000)
    d_gates, d_states = numpy_backward(EVERYTHING)(list(gates), list(states), list(d_next))
    for got, want in zip((*d_gates, *d_states), differences(EVERYTHING, gates, states, d_next), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_random_cells_have_the_derivatives_that_sympy_gives_their_whole_expressions() -> None:
    source, space = random.Random(11), {f"function_{name}": value for name, value in FUNCTIONS.items()}
    found = 0
    for _ in range(40):
        symbols = list(sympy.symbols("a b h c", real=True))
        h, c = (random_expression(source, symbols, 4) for _ in range(2))
        try:
            cell = Cell(
                "any", "Any", "none", ("h", "c"), (Gate("a"), Gate("b")), lambda g, s, h=h, c=c: {"h": h, "c": c}
            )
        except CellError:  # a gate is in neither expression
            continue
        found += 1
        values = np.random.default_rng(found).uniform(0.5, 1.5, (6, 40))
        names = dict(zip(["a", "b", "h", "c", "d_next_h", "d_next_c"], values, strict=True))
        d_gates, d_states = numpy_backward(cell)(list(values[:2]), list(values[2:4]), list(values[4:]))
        for got, symbol in zip((*d_gates, *d_states), symbols, strict=True):
            loss = sum(d * y.diff(symbol) for d, y in zip(sympy.symbols("d_next_h d_next_c"), (h, c), strict=True))
            want = eval(NumpyPrinter().text(sympy.sympify(loss)), {**space, **names})
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=f"{symbol} of {h}; {c}")
    assert found > 12


def own(step: Callable[[Any, Any], Any], **changes: Any) -> Cell:
    fields: dict[str, Any] = {"states": ("h",), "gates": (Gate("a"),), **changes}
    return Cell("own", "Own", "none", step=step, **fields)


def gradient(cell: Cell, *gates: float) -> float:
    """The gradient of h' to the first gate at one point, with zero states."""
    zeros = [np.zeros(1) for _ in cell.states]
    d_gates, _ = numpy_backward(cell)([np.array([float(gate)]) for gate in gates], zeros, [np.ones(1), *zeros[1:]])
    return float(d_gates[0][0])


def test_at_a_kink_the_derivative_is_the_documented_one() -> None:
    assert gradient(own(lambda g, s: {"h": relu(g.a)}), 0) == 0
    assert gradient(own(lambda g, s: {"h": absolute(g.a)}), 0) == 0
    assert gradient(own(lambda g, s: {"h": sign(g.a) + g.a}), 0) == 1
    assert gradient(own(lambda g, s: {"h": maximum(g.a, 1)}), 1) == 1
    assert gradient(own(lambda g, s: {"h": minimum(1, g.a)}), 1) == 1
    assert gradient(own(lambda g, s: {"h": where(g.a > 0, 2 * g.a, 3 * g.a)}), 0) == 3
    two = {"gates": (Gate("a"), Gate("b"))}
    assert gradient(own(lambda g, s: {"h": maximum(g.a, g.b)}, **two), 1, 1) == 1
    assert gradient(own(lambda g, s: {"h": maximum(g.b, g.a)}, **two), 1, 1) == 0


def test_choices_by_one_condition_are_one_choice() -> None:
    def step(gate: Any, state: Any) -> dict[str, Any]:
        size = absolute(gate.a)
        return {"h": where(gate.a >= 0, exp(-size), 1) * 2 + where(gate.a >= 0, 1, exp(-size)) * 3}

    lines = backward_equations(own(step))
    assert sum(line.count(" if ") for line in lines) <= 3, lines  # of the gradients' choices, and of the sign of a
    assert "sign" not in "".join(lines)


def test_the_value_that_is_not_chosen_stops_an_infinite_gradient() -> None:
    cell = own(lambda g, s: {"h": where(g.a > 1, g.a, 2 * relu(g.a))})
    (d_gate,), _ = numpy_backward(cell)([np.array([0.5, 2, -1])], [np.zeros(3)], [np.array([1, np.inf, np.inf])])
    np.testing.assert_array_equal(d_gate, [2, np.inf, 0])


def test_what_is_read_is_what_must_be_saved() -> None:
    def read(name: str) -> tuple[str, str, str]:
        cell = load_cell(name)
        code = derive(cell)
        assert code.saved_states == code.states
        return (
            " ".join(cell.gates[index].name for index in code.gates),
            " ".join(cell.gates[index].name for index in code.saved_gates),
            " ".join(cell.states[index] for index in code.states),
        )

    assert read("elman") == ("a", "a", "")
    assert read("lstm") == ("i f g o", "i f g o", "c")
    assert read("gru") == ("r z n g", "r z n g", "h")
    assert read("slstm") == ("i f z o", "i f z o", "c n m")
    assert read("lstm_cifg") == ("i g o p_i p_o", "i g o", "c")
    assert read("bilinear") == ("x g", "x g", "")
    linear = derive(own(lambda g, s: {"h": 0.5 * g.a}))
    assert (linear.gates, linear.states, linear.temporaries) == ((), (), ())


def test_what_waits_for_no_gradient_comes_first() -> None:
    for name in cell_names():
        code = derive(load_cell(name))
        late = set(code.seeds)
        waits = []
        for symbol, expression in code.temporaries:
            waits.append(bool(expression.free_symbols & late))
            if waits[-1]:
                late.add(symbol)
        assert waits == sorted(waits), name


def test_the_backward_equations_are_printed() -> None:
    text = "\n".join(backward_equations(load_cell("lstm")))
    assert "δc = δc' + δh' · σ(o) · (1 - t0²)" in text
    assert "δi = δc · σ(i) · tanh(g) · (1 - σ(i))" in text
    assert "δ(t-1)" not in text
    for name in cell_names():
        cell = load_cell(name)
        lines = backward_equations(cell)
        results = [line.split(" = ")[0] for line in lines]
        assert len(results) == len(set(results)), name
        assert all("d_next" not in line and "d_" not in line.replace("p_d_", "") for line in lines), lines
        assert results[-len(cell.states) :] == [f"δ{state}(t-1)" for state in cell.states]


# ---- sequences ----


def problem(name: str, *, seq: int = 12, initial: str = "random") -> tuple[Cell, dict[str, Array], Array, Array]:
    cell, shape = load_cell(name), Shape(batch=3, seq=seq, heads=2, head_dim=5)
    given = {key: array.astype(np.float64) for key, array in random_inputs(cell, shape, 5, initial=initial).items()}  # type: ignore[arg-type]
    source = np.random.default_rng(8)
    d_states = source.normal(size=(len(cell.states), 3, seq, 2, 5))
    return cell, given, d_states, source.normal(size=d_states[:, :, 0].shape)


def autograd(cell: Cell, given: dict[str, Array], d_states: Array, d_last: Array) -> list[Array]:
    leaves = {key: torch.from_numpy(array).requires_grad_() for key, array in given.items()}
    states = run(cell, **leaves)
    loss = (states * torch.from_numpy(d_states)).sum() + (states[:, :, -1] * torch.from_numpy(d_last)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return [leaf.grad.numpy() if leaf.grad is not None else np.zeros(leaf.shape) for leaf in leaves.values()]


@pytest.mark.parametrize("initial", ["zeros", "random"])
@pytest.mark.parametrize("name", cell_names())
def test_the_backward_reference_is_that_of_autograd(name: str, initial: str) -> None:
    cell, given, d_states, d_last = problem(name, initial=initial)
    got = reference.backward(cell, **given, d_states=d_states, d_last=d_last)
    expected = autograd(cell, given, d_states, d_last)
    for array, want in zip((got.d_wx, got.d_r, got.d_b, got.d_initial), expected, strict=True):
        np.testing.assert_allclose(array, want, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(want).max()))


def test_gradients_that_are_not_given_are_zeros() -> None:
    cell, given, d_states, d_last = problem("slstm")
    hidden = reference.backward(cell, **given, d_states=d_states[:1])
    full = reference.backward(cell, **given, d_states=d_states * [[[[[1]]]], [[[[0]]]], [[[[0]]]], [[[[0]]]]])
    np.testing.assert_array_equal(hidden.d_wx, full.d_wx)
    last = reference.backward(cell, **given, d_last=d_last)
    d_states[:, :, :-1], d_states[:, :, -1] = 0, d_last
    np.testing.assert_array_equal(last.d_r, reference.backward(cell, **given, d_states=d_states).d_r)
    assert not reference.backward(cell, **given).d_b.any()


def test_the_gradients_of_inputs_and_biases_are_sums_of_those_of_gates() -> None:
    cell, given, d_states, d_last = problem("gru")
    got = reference.backward(cell, **given, d_states=d_states, d_last=d_last)
    np.testing.assert_array_equal(got.d_wx, np.moveaxis(got.d_gates[[0, 1, 2]], 0, 2))
    np.testing.assert_allclose(got.d_b, got.d_gates.sum((1, 2)))


def test_a_cut_recurrence_leaves_the_gradient_within_its_step() -> None:
    """autograd with the product's h detached; R still gets its gradient."""
    cell, given, d_states, _ = problem("gru", seq=4)
    leaves = {key: torch.from_numpy(array).requires_grad_() for key, array in given.items()}
    state = leaves["initial"][0]
    loss = torch.zeros((), dtype=torch.float64)
    for t in range(4):
        h = state.detach()
        rec = torch.einsum("ghdp,bhp->gbhd", leaves["r"], h)
        wx, b = leaves["wx"][:, t].transpose(0, 1), leaves["b"]
        r, z, n, g = rec[0] + wx[0] + b[0], rec[1] + wx[1] + b[1], wx[2] + b[2], rec[2] + b[3]
        (state,) = STEPS["gru"]([state], r, z, n, g)
        loss = loss + (state * torch.from_numpy(d_states[0, :, t])).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    got = reference.backward(cell.with_gradient(recurrent_cut=True), **given, d_states=d_states)
    for array, leaf in zip((got.d_wx, got.d_r, got.d_b, got.d_initial), leaves.values(), strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(array, leaf.grad.numpy(), rtol=1e-10, atol=1e-12)


class _Clamped(torch.autograd.Function):
    """The identity, whose gradient is clamped to [-0.01, 0.01]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clamp(-0.01, 0.01)


def test_a_clipped_gradient_is_clamped_between_steps_and_nowhere_else() -> None:
    cell, given, d_states, d_last = problem("lstm", seq=5)
    leaves = {key: torch.from_numpy(array).requires_grad_() for key, array in given.items()}
    state, loss = list(leaves["initial"]), torch.zeros((), dtype=torch.float64)
    for t in range(5):
        wx = leaves["wx"][:, t].transpose(0, 1)
        h = _Clamped.apply(state[0]) if t else state[0]
        sums = torch.einsum("ghdp,bhp->gbhd", leaves["r"], h) + wx + leaves["b"][:, None]
        state = STEPS["lstm"]([h, state[1]], *sums)
        loss = loss + (torch.stack(state) * torch.from_numpy(d_states[:, :, t])).sum()
    (loss + (torch.stack(state) * torch.from_numpy(d_last)).sum()).backward()  # type: ignore[no-untyped-call]
    got = reference.backward(cell.with_gradient(recurrent_clip=0.01), **given, d_states=d_states, d_last=d_last)
    for array, leaf in zip((got.d_wx, got.d_r, got.d_b, got.d_initial), leaves.values(), strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(array, leaf.grad.numpy(), rtol=1e-10, atol=1e-12)
    exact = reference.backward(cell, **given, d_states=d_states, d_last=d_last)
    assert np.abs(exact.d_wx - got.d_wx).max() > 0.01


@pytest.mark.parametrize("bound", [0, -1, float("nan"), float("inf"), 1e39])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    with pytest.raises(CellError, match="must be positive"):
        load_cell("lstm").with_gradient(recurrent_clip=bound)
    with pytest.raises(CellError, match="must be positive"):
        load_cell("lstm").clipped(bound)


def test_a_clipped_cell_clamps_h_and_its_gradient() -> None:
    cell = load_cell("elman_relu").clipped(0.5)
    assert cell != load_cell("elman_relu")
    gates = [np.array([-1, 0.25, 0.75])]
    np.testing.assert_array_equal(numpy_step(cell)(gates, gates)[0], [0, 0.25, 0.5])
    np.testing.assert_array_equal(numpy_backward(cell)(gates, gates, [np.ones(3)])[0][0], [0, 1, 0])
    slstm = load_cell("slstm").clipped(0.1)
    assert "value_decay" not in slstm.names
    assert "decay" in slstm.names


def test_roundings_act_where_a_kernel_rounds() -> None:
    cell, given, d_states, _ = problem("lstm", seq=6)
    exact = reference.backward(cell, **given, d_states=d_states)
    forward = reference.forward(cell, **given)
    assert forward.gates is not None
    saved = reference.backward(cell, **given, d_states=d_states, round_saved=np.float16)
    stored = reference.ForwardResult(
        forward.states.astype(np.float16).astype(np.float64),
        forward.last,
        forward.gates.astype(np.float16).astype(np.float64),
    )
    given["initial"] = given["initial"].astype(np.float16).astype(np.float64)
    again = reference.backward(cell, **given, d_states=d_states, result=stored)
    np.testing.assert_array_equal(saved.d_wx, again.d_wx)
    assert 0 < np.abs(saved.d_wx - exact.d_wx).max() < 0.01
    products = reference.backward(cell, **given, d_states=d_states, round_d_gates=np.float16)
    np.testing.assert_array_equal(products.d_gates, products.d_gates.astype(np.float16))


def test_arrays_of_another_shape_are_refused() -> None:
    cell, given, d_states, d_last = problem("lstm")
    with pytest.raises(ShapeError, match="d_states must have shape"):
        reference.backward(cell, **given, d_states=d_states[:, :, 1:])
    with pytest.raises(ShapeError, match="d_last must have shape"):
        reference.backward(cell, **given, d_last=d_last[:1])
    with pytest.raises(ShapeError, match="keep_gates"):
        reference.backward(cell, **given, result=reference.forward(cell, **given, keep_gates=False))
