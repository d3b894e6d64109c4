"""The float64 reference against formulas written out by hand, random inputs, and the tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from cell_formulas import run

from kernelgen.cells import cell_names, load_cell
from kernelgen.emit.numpy import numpy_step
from kernelgen.errors import ShapeError
from kernelgen.program import dtypes
from kernelgen.program.shape import Shape
from kernelgen.verify import batch_parts, reference
from kernelgen.verify.inputs import random_inputs
from kernelgen.verify.products import IN_ONE_THREAD, HeadProduct, sum_of_products

pytestmark = pytest.mark.unit

Array = np.ndarray[Any, Any]
Steps = list[list[Array]]


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def products(r: Array, h: Array) -> Array:
    """R_g h for every gate: [G, B, H, D]."""
    return np.einsum("ghdp,bhp->gbhd", r, h)


def lstm(wx: Array, r: Array, b: Array, state: list[Array]) -> list[Array]:
    h, c = state
    i, f, g, o = wx + products(r, h) + b[:, None]
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    return [logistic(o) * np.tanh(c), c]


def wide(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


@pytest.mark.parametrize("initial", ["zeros", "random"])
@pytest.mark.parametrize("name", cell_names())
def test_the_reference_is_the_formula_written_by_hand(name: str, initial: Any) -> None:
    cell, shape = load_cell(name), Shape(batch=3, seq=7, heads=2, head_dim=5)
    given = wide(random_inputs(cell, shape, seed=4, initial=initial))
    result = reference.forward(cell, **given)
    expected = run(cell, **{key: torch.from_numpy(array) for key, array in given.items()})
    np.testing.assert_allclose(result.states, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(result.last, result.states[:, :, -1])
    if initial == "zeros":
        np.testing.assert_array_equal(reference.forward(cell, **{**given, "initial": None}).states, result.states)


def test_gates_are_the_sums_of_the_parts_that_each_gate_has() -> None:
    cell, shape = load_cell("gru"), Shape(batch=2, seq=3, heads=2, head_dim=4)
    given = wide(random_inputs(cell, shape))
    result = reference.forward(cell, **given)
    assert result.gates is not None
    h, (r, z, n, g) = result.states[0, :, 1], result.gates[:, :, 2]
    recurrent, wx, b = products(given["r"], h), given["wx"][:, 2], given["b"]
    np.testing.assert_allclose(r, recurrent[0] + wx[:, 0] + b[0])
    np.testing.assert_allclose(z, recurrent[1] + wx[:, 1] + b[1])
    np.testing.assert_allclose(n, wx[:, 2] + b[2])
    np.testing.assert_allclose(g, recurrent[2] + b[3])
    assert reference.forward(cell, **given, keep_gates=False).gates is None


def test_slstm_does_not_depend_on_its_stabiliser() -> None:
    """h is the same as without one, where nothing overflows: exp(i) and sigmoid(f) as they stand."""
    cell, shape = load_cell("slstm"), Shape(batch=2, seq=9, heads=1, head_dim=6)
    given = wide(random_inputs(cell, shape, initial="zeros"))
    result = reference.forward(cell, **given)
    h = c = n = np.zeros((2, 1, 6))
    for t in range(shape.seq):
        i, f, z, o = given["wx"][:, t].transpose(1, 0, 2, 3) + products(given["r"], h) + given["b"][:, None]
        c, n = logistic(f) * c + np.exp(i) * np.tanh(z), logistic(f) * n + np.exp(i)
        h = logistic(o) * c / n
        np.testing.assert_allclose(result.states[0, :, t], h, rtol=1e-11)
    assert (result.states[2] >= 1).all()


def test_slstm_survives_gates_of_any_size() -> None:
    step = numpy_step(load_cell("slstm"))
    extremes = np.array([-3e4, -100.0, 0.0, 100.0, 3e4])
    i, f = (grid.ravel() for grid in np.meshgrid(extremes, extremes))
    state = [np.zeros(i.size) for _ in range(4)]
    for _ in range(3):
        state = step([i, f, np.ones(i.size), np.full(i.size, 50.0)], state)
        # The candidate is tanh(1) at every step, so the normalised average is too, whatever the gates forget.
        np.testing.assert_allclose(state[0], np.tanh(1.0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_h_is_rounded_where_a_kernel_rounds_it_and_nothing_else_is(dtype: Any) -> None:
    cell, shape = load_cell("lstm"), Shape(batch=2, seq=4, heads=1, head_dim=8)
    given = wide(random_inputs(cell, shape))
    given["initial"] = given["initial"] + 1e-4  # not representable in 16 bits
    rounded = reference.forward(cell, **given, round_h=dtype)
    state = [given["initial"][0].astype(dtype).astype(np.float64), given["initial"][1]]
    for t in range(shape.seq):
        state = lstm(given["wx"][:, t].transpose(1, 0, 2, 3), given["r"], given["b"], state)
        state[0] = state[0].astype(dtype).astype(np.float64)
        np.testing.assert_allclose(rounded.states[:, :, t], np.stack(state), rtol=1e-12, atol=0)
    exact = reference.forward(cell, **given)
    assert np.abs(exact.states[0] - rounded.states[0]).max() > 1e-5


def test_the_gru_mixes_in_the_rounded_h() -> None:
    """With the update gate shut h must stay what it was rounded to, bit for bit, at every step."""
    cell, shape = load_cell("gru"), Shape(batch=1, seq=5, heads=1, head_dim=4)
    given = wide(random_inputs(cell, shape))
    given["wx"][:, :, 1] = 1e6
    given["initial"][:] = 1 / 3
    result = reference.forward(cell, **given, round_h=ml_dtypes.bfloat16)
    assert (result.states == np.float64(ml_dtypes.bfloat16(1 / 3))).all()


@pytest.mark.parametrize("name", ["wx", "r", "b", "initial"])
def test_an_array_of_another_shape_is_refused(name: str) -> None:
    cell = load_cell("lstm")
    given = random_inputs(cell, Shape(batch=2, seq=3, heads=2, head_dim=4))
    given[name] = given[name][..., :3]
    with pytest.raises(ShapeError, match=r"must have"):
        reference.forward(cell, **given)
    with pytest.raises(ShapeError, match="five axes"):
        reference.forward(cell, **{**given, "wx": given["wx"][0]})


@pytest.mark.parametrize("name", cell_names())
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_random_inputs_have_the_shapes_of_the_contract(name: str, dtype: str) -> None:
    cell, shape = load_cell(name), Shape(batch=3, seq=4, heads=2, head_dim=64, dtype=dtype)
    drawn = random_inputs(cell, shape, seed=1)
    recurrent, inputs, biases = (len(x) for x in (cell.recurrent_gates, cell.input_gates, cell.bias_gates))
    assert {name: array.shape for name, array in drawn.items()} == {
        "wx": (3, 4, inputs, 2, 64), "r": (recurrent, 2, 64, 64), "b": (biases, 2, 64),
        "initial": (len(cell.states), 3, 2, 64),
    }  # fmt: skip
    for array in drawn.values():
        assert array.dtype == dtypes.numpy_dtype(dtype)
        assert array.flags.c_contiguous
        assert np.isfinite(array.astype(np.float32)).all()
    assert drawn["r"].astype(np.float64).std() * 8 == pytest.approx(cell.gain * 1.7 / 3**0.5, rel=0.05)
    for index, gate in enumerate(cell.bias_gates):
        low, high = cell.ranges.get(cell.gates[gate].name, (-1.7, 1.7))
        assert low <= drawn["b"][index].astype(np.float64).min() < drawn["b"][index].astype(np.float64).max() <= high
    for index, state in enumerate(cell.states):
        low, high = cell.range(state)
        values = drawn["initial"][index].astype(np.float64)
        assert low <= values.min() < values.max() <= high
    same, other = random_inputs(cell, shape, seed=1), random_inputs(cell, shape, seed=2)
    assert all((same[key] == drawn[key]).all() for key in drawn)
    assert (other["wx"] != drawn["wx"]).any()
    assert not random_inputs(cell, shape, initial="zeros")["initial"].any()


@pytest.mark.parametrize("name", cell_names())
def test_random_inputs_make_a_recurrence_that_forgets_its_roundings(name: str) -> None:
    """Over many steps h neither grows nor amplifies its roundings, or comparing a kernel's would prove nothing."""
    cell, shape = load_cell(name), Shape(batch=2, seq=400, heads=1, head_dim=32)
    given = random_inputs(cell, shape, seed=2)
    exact = reference.forward(cell, **given).states[0]
    rounded = reference.forward(cell, **given, round_h=ml_dtypes.bfloat16).states[0]
    assert np.abs(exact).max() < 50
    assert np.linalg.norm(rounded - exact) < 0.03 * np.linalg.norm(exact)


def test_dtypes_say_what_numpy_says() -> None:
    for name in ("bfloat16", "float16"):
        info, known = dtypes.dtype_info(name), ml_dtypes.finfo(dtypes.numpy_dtype(name))
        assert info.unit_roundoff == float(known.eps) / 2
        assert info.largest == float(known.max)
        assert info.itemsize == dtypes.numpy_dtype(name).itemsize
    with pytest.raises(ShapeError, match=r"unknown dtype 'bf16': .*bfloat16"):
        dtypes.dtype_info("bf16")


def inexact(cell: Any, seed: int) -> Callable[..., Any]:
    """A step whose gates' sums and new states are off as a kernel's may be: by up to 2^-11, uniformly."""
    exact, source = numpy_step(cell), np.random.default_rng(seed)

    def step(gates: Any, states: Any) -> list[Array]:
        return [
            value * (1 + dtypes.SPECIAL_ERROR * source.uniform(-1, 1, value.shape)) for value in exact(gates, states)
        ]

    return step


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["elman", "gru", "lstm", "slstm"])
@pytest.mark.parametrize("seq", [1, 200])
def test_the_tolerance_passes_rounding_errors_and_little_more(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: str, seq: int
) -> None:
    cell, shape = load_cell(name), Shape(batch=4, seq=seq, heads=2, head_dim=32, dtype=dtype)
    given = random_inputs(cell, shape, seed=seq)
    stored = dtypes.numpy_dtype(dtype)
    expected = reference.forward(cell, **given, round_h=stored)
    monkeypatch.setattr(reference, "numpy_step", lambda _: inexact(cell, seed=3))
    actual = reference.forward(cell, **given, round_h=stored).states.astype(stored).astype(np.float64)
    for index in range(len(cell.states)):
        difference = np.abs(actual[index] - expected.states[index])
        error = np.linalg.norm(difference) / np.linalg.norm(expected.states[index])
        assert 0.1 * dtypes.tolerance(dtype, seq) < error < dtypes.tolerance(dtype, seq)
        assert difference.max() < dtypes.element_tolerance(dtype) * np.abs(expected.states[index]).max()


def test_the_tolerance_sees_a_missing_bias_and_a_single_lost_element() -> None:
    cell, shape = load_cell("lstm"), Shape(batch=4, seq=50, heads=2, head_dim=32)
    given = random_inputs(cell, shape)
    expected = reference.forward(cell, **given, round_h=ml_dtypes.bfloat16).states[0]
    given["b"][2, 1, 7] = 0
    wrong = reference.forward(cell, **given, round_h=ml_dtypes.bfloat16).states[0]
    assert np.linalg.norm(wrong - expected) > 5 * dtypes.tolerance("bfloat16", 50) * np.linalg.norm(expected)
    # Losing an element (a zero in its place) is seen, wherever the element was not about zero anyway.
    seen = np.abs(expected) > dtypes.element_tolerance("bfloat16") * np.abs(expected).max()
    assert seen.mean() > 0.85


@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_what_follows_its_own_steps_is_what_runs_by_itself(name: str) -> None:
    cell, shape = load_cell(name), Shape(3, reference.AHEAD + 7, 2, 5, "float16")
    given = random_inputs(cell, shape, seed=2)
    itself = reference.forward(cell, **given, round_h=np.float16)
    following = reference.forward(cell, **given, round_h=np.float16, follow=itself.states[0].astype(np.float16))
    np.testing.assert_allclose(following.states, itself.states, rtol=1e-12, atol=1e-14)
    given["d_last"] = itself.last / 8
    back = reference.backward(cell, **given, round_d_gates=np.float16, result=itself)
    sent = back.d_wx.astype(np.float16)
    again = reference.backward(cell, **given, round_d_gates=np.float16, result=itself, follow=sent)
    np.testing.assert_array_equal(again.d_wx.astype(np.float16), sent)  # its own, before they are rounded
    np.testing.assert_allclose(again.d_r, back.d_r, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(again.d_initial, back.d_initial, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("heads", "batch", "inner", "columns", "part"),
    [
        (2, 4, 8, 24, None),  # small: one thread computes it anyway
        (6, 16, 128, 384, (16, 128)),
        (3, 128, 128, 512, (32, 64)),
        (2, 48, 129, 3 * 129, (24, 43)),
        (1, 1, 1024, 2048, (1, 256)),
        (2, 17, 131, 4 * 131, None),  # no divisor but 4
        (1, 128, 512, 2048, None),  # worth all threads
    ],
)
def test_products_are_made_in_parts_that_wake_no_threads(
    heads: int, batch: int, inner: int, columns: int, part: tuple[int, int] | None
) -> None:
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((heads, batch, inner)), rng.standard_normal((heads, inner, columns))
    product = HeadProduct(weights, batch)
    assert (product.rows, product.columns) == (part or (batch, 0))
    if part is not None:
        assert part[0] * part[1] * inner <= IN_ONE_THREAD
    np.testing.assert_allclose(product(rows), rows @ weights, rtol=1e-10, atol=1e-10)
    strided = np.ascontiguousarray(rows.transpose(1, 0, 2)).transpose(1, 0, 2)
    np.testing.assert_array_equal(product(strided), product(rows))


@pytest.mark.parametrize(("count", "rows", "columns"), [(70, 64, 64), (4097, 64, 64), (64, 8, 16), (100, 512, 512)])
def test_products_of_many_rows_are_added_in_parts(count: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((count, rows)), rng.standard_normal((count, columns))
    np.testing.assert_allclose(sum_of_products(left, right), left.T @ right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_sequences_in_parts_are_those_of_the_whole_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, shape = load_cell(name), Shape(7, 9, 2, 8, "float32", "gates")
    random = np.random.default_rng(0)
    given: dict[str, Any] = dict(random_inputs(cell, shape))
    given["resets"], given["lengths"] = random.random((7, 9)) < 0.2, np.array([9, 0, 3, 9, 1, 8, 9])
    d_states = random.random((1, 7, 9, 2, 8))
    whole = reference.forward(cell, **given), reference.backward(cell, **given, d_states=d_states)
    follow = whole[1].d_wx.astype(np.float32)
    followed = reference.backward(cell, **given, d_states=d_states, follow=follow)
    counts = []
    for part, cores in ((1, 3), (1 << 20, 3)):
        monkeypatch.setattr(batch_parts, "PART", part)
        monkeypatch.setattr(batch_parts.os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        parts: list[slice] = []
        batch_parts.in_parts(parts.append, 7, 10)
        counts.append(len(parts))
        assert sorted(row for rows in parts for row in range(7)[rows]) == list(range(7))
        again = reference.forward(cell, **given), reference.backward(cell, **given, d_states=d_states)
        again_followed = reference.backward(cell, **given, d_states=d_states, follow=follow)
        for one, other in zip((*whole, followed), (*again, again_followed), strict=True):
            for field, value in vars(one).items():
                np.testing.assert_allclose(getattr(other, field), value, rtol=1e-12, atol=1e-14)
    assert counts == [3, 1]


def test_what_goes_wrong_in_a_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_parts, "PART", 1)
    monkeypatch.setattr(batch_parts.os, "sched_getaffinity", lambda _: range(2))

    def run(rows: slice) -> None:
        if rows.start:
            raise ShapeError("the second")

    with pytest.raises(ShapeError, match="the second"):
        batch_parts.in_parts(run, 4, 1)
