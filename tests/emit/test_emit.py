"""Printers: the CUDA text against the NumPy text, the device math, and the counts of instructions."""

from __future__ import annotations

import ctypes
import math
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
from expressions import random_expression
from zoo import zoo

from kernelgen.build.compile import compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import (
    Cell,
    maximum,
    minimum,
    sigmoid,
    tanh,
    where,
)  # fmt: skip
from kernelgen.cells.language import abs as absolute
from kernelgen.emit.cuda import CellCost, backward_cost, cell_cost, cell_struct
from kernelgen.emit.numpy import FUNCTIONS, NumpyPrinter, numpy_backward, numpy_step
from kernelgen.paths import cuda_headers
from kernelgen.program.source import Source

unit = pytest.mark.unit
compiled = pytest.mark.compiled

# What math.cuh needs of ptx.cuh, with the exact functions in place of the approximate ones.
SHIM = """\
#pragma once
#include <cmath>
#define TILESMITH_DEVICE inline
namespace tilesmith {
inline float tanh_approx(float x) { return std::tanh(x); }
inline float ex2_approx(float x) { return std::exp2(x); }
inline float lg2_approx(float x) { return std::log2(x); }
inline float rcp_approx(float x) { return 1.0f / x; }
inline float sqrt_approx(float x) { return std::sqrt(x); }
inline float fma_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float abs_rn(float a) { return std::fabs(a); }
inline float tanh_library(float x) { return std::tanh(x); }
inline float exp_library(float x) { return std::exp(x); }
inline float log_library(float x) { return std::log(x); }
inline float log1p_library(float x) { return std::log1p(x); }
inline float pow_library(float x, float y) { return std::pow(x, y); }
inline float sqrt_rn(float x) { return std::sqrt(x); }
inline float rcp_rn(float x) { return 1.0f / x; }
}
"""

ENTRY = """
extern "C" void {name}_steps(int count, const float* gates, const float* states, float* next) {{
    for (int unit = 0; unit < count; ++unit) {{
        float gate[{name}::gates], state[{name}::states], out[{name}::states];
        for (int g = 0; g < {name}::gates; ++g) gate[g] = gates[g * count + unit];
        for (int s = 0; s < {name}::states; ++s) state[s] = states[s * count + unit];
        {name}::step(gate, state, out);
        for (int s = 0; s < {name}::states; ++s) next[s * count + unit] = out[s];
    }}
}}
extern "C" void {name}_gradients(int count, const float* gates, const float* states, const float* d_next,
                                 float* d_gates, float* d_states) {{
    for (int unit = 0; unit < count; ++unit) {{
        float gate[{name}::gates], state[{name}::states], d_new[{name}::states];
        float d_gate[{name}::gates], d_state[{name}::states];
        // What the masks leave out must not be read: a NaN would show.
        for (int g = 0; g < {name}::gates; ++g) {{
            gate[g] = {name}::backward_gates >> g & 1 ? gates[g * count + unit] : NAN;
        }}
        for (int s = 0; s < {name}::states; ++s) {{
            state[s] = {name}::backward_states >> s & 1 ? states[s * count + unit] : NAN;
            d_new[s] = d_next[s * count + unit];
        }}
        {name}::Ready ready;
        {name}::prepare(gate, state, ready);
        {name}::backward(ready, d_new, d_gate, d_state);
        for (int g = 0; g < {name}::gates; ++g) d_gates[g * count + unit] = d_gate[g];
        for (int s = 0; s < {name}::states; ++s) d_states[s * count + unit] = d_state[s];
    }}
}}
extern "C" unsigned {name}_mask(int part) {{
    return part == 0 ? {name}::recurrent : part == 1 ? {name}::input : {name}::bias;
}}
extern "C" float {name}_recurrent_gradient(float d_h) {{
    return {name}::recurrent_cut ? 0.0f : {name}::recurrent_gradient(d_h);
}}
"""

MATH = (
    "tanh", "sigmoid", "exp", "log", "log_sigmoid", "softplus", "relu", "absolute", "sign", "reciprocal", "sqrt",
)  # fmt: skip


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All cells and all of math.cuh, through g++ with every warning an error."""
    folder = tmp_path_factory.mktemp("cells")
    (folder / "ptx.cuh").write_text(SHIM)
    (folder / "math.cuh").write_text((cuda_headers() / "math.cuh").read_text())
    parts = ['#include "math.cuh"']
    for name, cell in zoo().items():
        text = cell_struct(cell, backward=True)
        parts += [text.replace("struct Cell {", f"struct {name} {{"), ENTRY.format(name=name)]
    for name in MATH:
        parts.append(f'extern "C" float math_{name}(float x) {{ return tilesmith::math::{name}(x); }}')
    for name in ("maximum", "minimum", "power"):
        parts.append(f'extern "C" float math_{name}(float x, float y) {{ return tilesmith::math::{name}(x, y); }}')
    (folder / "cells.cpp").write_text("\n".join(parts))
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "cells.cpp", "-o", "a.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "a.so"))


def random_units(cell: Cell, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Gates and states of ``count`` units; the first half of them starts from zero states."""
    source = np.random.default_rng(7)
    gates = source.normal(0, 3, (len(cell.gates), count)).astype(np.float32)
    states = np.stack([source.uniform(*cell.range(name), count) for name in cell.states]).astype(np.float32)
    states[:, : count // 2] = 0
    return gates, states


@unit
@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_cuda_text_computes_what_the_numpy_text_does(native: ctypes.CDLL, name: str) -> None:
    cell, count = zoo()[name], 4000
    gates, states = random_units(cell, count)
    out = np.full(states.shape, np.nan, np.float32)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (gates, states, out)]
    native[f"{name}_steps"](count, *pointers)
    expected = np.stack(numpy_step(cell)(list(gates.astype(np.float64)), list(states.astype(np.float64))))
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-6)
    parts = (cell.recurrent_gates, cell.input_gates, cell.bias_gates)
    assert [native[f"{name}_mask"](part) for part in range(3)] == [sum(1 << g for g in gates) for gates in parts]


@unit
@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_cuda_text_of_the_backward_step_computes_what_the_numpy_text_does(native: ctypes.CDLL, name: str) -> None:
    cell, count = zoo()[name], 4000
    gates, states = random_units(cell, count)
    d_next = np.random.default_rng(9).normal(size=states.shape).astype(np.float32)
    d_gates, d_states = np.full(gates.shape, np.nan, np.float32), np.full(states.shape, np.nan, np.float32)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (gates, states, d_next, d_gates, d_states)]
    native[f"{name}_gradients"](count, *pointers)
    wide = [list(array.astype(np.float64)) for array in (gates, states, d_next)]
    for out, expected in zip((d_gates, d_states), numpy_backward(cell)(*wide), strict=True):
        for got, want in zip(out, expected, strict=True):
            # Sums that cancel are as exact as their terms. A unit within float32's error of a kink may be on its
            # other side.
            error = np.abs(got - want) > 2e-5 * np.abs(want) + 2e-5
            assert error.mean() < 1e-3, (name, got[error], want[error])


@unit
def test_the_options_of_a_gradient_are_in_the_text(native: ctypes.CDLL) -> None:
    def back(name: str, value: float) -> float:
        function = native[f"{name}_recurrent_gradient"]
        function.restype = ctypes.c_float
        return float(function(ctypes.c_float(value)))

    assert [back("gru", value) for value in (-3, -0.125, 0.125, INF)] == [-0.25, -0.125, 0.125, 0.25]
    assert math.isnan(back("gru", math.nan))
    assert [back("lstm", value) for value in (-3, INF)] == [-3, INF]
    assert back("elman", 2.5) == 0


@unit
def test_a_forward_kernel_has_no_backward_step() -> None:
    cell = load_cell("lstm")
    assert "backward" not in cell_struct(cell)
    lines = cell_struct(cell, backward=True).splitlines()
    assert [line for line in cell_struct(cell).splitlines() if line not in lines] == []


def device(native: ctypes.CDLL, name: str, *values: float) -> float:
    function = native[f"math_{name}"]
    function.restype = ctypes.c_float
    return float(function(*(ctypes.c_float(value) for value in values)))


INF = math.inf


@unit
@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("tanh", {INF: 1, -INF: -1, 50: 1}),
        ("sigmoid", {INF: 1, -INF: 0, 100: 1, -100: 0, 0: 0.5}),
        ("exp", {INF: INF, -INF: 0, 200: INF, -200: 0, 0: 1}),
        ("log", {INF: INF, 0: -INF, 1: 0, -1: math.nan}),
        ("log_sigmoid", {INF: 0, -INF: -INF, 100: 0, -100: -100, -1e30: -1e30, 0: -math.log(2)}),
        ("softplus", {INF: INF, -INF: 0, 100: 100, -100: 0, 0: math.log(2)}),
        ("relu", {INF: INF, -INF: 0, -1: 0, 2: 2}),
        ("absolute", {-INF: INF, -2: 2}),
        ("sign", {INF: 1, -INF: -1, 0: 0, -0.5: -1}),
        ("reciprocal", {INF: 0, 4: 0.25, 0: INF}),
        ("sqrt", {INF: INF, 0: 0, 4: 2, -1: math.nan}),
    ],
)
def test_device_functions_saturate_and_hand_nan_on(native: ctypes.CDLL, name: str, points: dict[float, float]) -> None:
    for x, y in points.items():
        assert device(native, name, x) == pytest.approx(y, rel=1e-6, nan_ok=True), f"{name}({x})"
    assert math.isnan(device(native, name, math.nan))


@unit
def test_the_larger_and_the_smaller_value_keep_a_nan_on_either_side(native: ctypes.CDLL) -> None:
    for name, choose in (("maximum", max), ("minimum", min)):
        for a, b in ((1, 2), (2, 1), (-INF, 3), (INF, 3), (1, 1)):
            assert device(native, name, a, b) == choose(a, b)
        assert math.isnan(device(native, name, math.nan, 1))
        assert math.isnan(device(native, name, 1, math.nan))
    assert device(native, "power", 3, 2.5) == pytest.approx(3**2.5, rel=1e-6)


def evaluate(node: Any, values: dict[Any, float]) -> Any:
    """The value of an expression by walking it in Python floats, independently of the printers."""
    if node.is_Symbol:
        return values[node]
    if isinstance(node, sympy.Expr) and not node.free_symbols:
        return float(node)
    rules: dict[Any, Callable[..., Any]] = {
        sympy.Add: lambda *a: math.fsum(a), sympy.Mul: lambda *a: math.prod(a), sympy.Pow: lambda a, b: a**b,
        tanh: math.tanh, absolute: abs, sigmoid: lambda x: 1 / (1 + math.exp(-x)), maximum: max, minimum: min,
        where: lambda condition, a, b: a if condition else b,
        sympy.And: lambda *a: all(a), sympy.Or: lambda *a: any(a), sympy.Not: lambda a: not a,
        sympy.StrictLessThan: lambda a, b: a < b, sympy.StrictGreaterThan: lambda a, b: a > b,
        sympy.LessThan: lambda a, b: a <= b, sympy.GreaterThan: lambda a, b: a >= b,
    }  # fmt: skip
    return rules[node.func](*(evaluate(argument, values) for argument in node.args))


@unit
def test_printed_expressions_mean_what_the_tree_means() -> None:
    source = random.Random(3)
    symbols = list(sympy.symbols("x y z", real=True))
    space = {f"function_{name}": value for name, value in FUNCTIONS.items()}
    for _ in range(300):
        expression = random_expression(source, symbols, 4)
        values = {symbol: source.uniform(0.5, 1.5) for symbol in symbols}
        text = NumpyPrinter().text(expression)
        got = eval(text, {**space, **{symbol.name: np.float64(value) for symbol, value in values.items()}})
        assert float(got) == pytest.approx(evaluate(expression, values), rel=1e-9, abs=1e-9), text


@unit
def test_values_used_twice_are_computed_once_and_named() -> None:
    text = cell_struct(load_cell("slstm"))
    assert text.count("math::log_sigmoid(") == 1
    assert text.count("math::exp(") == 1
    assert "const bool value_newer = value_gap >= 0.0f;" in text
    assert "next[1] = next_c;" in text
    assert "const float sigmoid_z = math::sigmoid(gate_z);" in cell_struct(load_cell("gru"))


@unit
def test_what_waits_longest_comes_last() -> None:
    """A sum whose last term is the slowest needs one fused multiply-add after it."""
    assert re.search(r"next\[0\] = .* \* math::tanh\(gate_n \+ ", cell_struct(load_cell("gru")))


@unit
def test_the_cost_of_cells_counted_by_hand() -> None:
    # sigmoid: multiply, tanh, fma. tanh(c') waits for sigmoid(f) (2), c' (1), and h' is one more multiply.
    assert cell_cost(load_cell("lstm")) == CellCost(5, 3 * 2 + 2 + 1, 2, 4, live=3)
    assert cell_cost(load_cell("elman")) == CellCost(1, 0, 1, 0, live=1)
    # h: two multiply-adds; m: compare, select, add; c and n are copies.
    assert cell_cost(zoo()["constants"]) == CellCost(0, 5, 0, 1, live=2)
    gru = cell_cost(load_cell("gru"))
    assert (gru.special, gru.chain_special) == (3, 2)


@unit
def test_the_cost_of_backward_steps_counted_by_hand() -> None:
    # elman: tanh, 1 - t^2, times d.
    assert backward_cost(load_cell("elman")) == CellCost(1, 2, 0, 1, live=2, ready=1)
    # bilinear: two products.
    assert backward_cost(load_cell("bilinear")) == CellCost(0, 2, 0, 1, live=2, ready=2)
    # lstm: four functions and tanh(c'); after d_h come the multiply-add of d_c and one multiply.
    lstm = backward_cost(load_cell("lstm"))
    assert (lstm.special, lstm.chain_special, lstm.chain_arithmetic, lstm.ready) == (5, 0, 2, 6)


STEP = """\
    float gate[Cell::gates], state[Cell::states], next[Cell::states];
    for (int g = 0; g < Cell::gates; ++g) gate[g] = gates[g];
    for (int s = 0; s < Cell::states; ++s) state[s] = states[s];
    Cell::step(gate, state, next);
    for (int s = 0; s < Cell::states; ++s) states[s] = next[s];
"""

BACKWARD = """\
    float gate[Cell::gates], state[Cell::states], d_next[Cell::states];
    float d_gate[Cell::gates], d_state[Cell::states];
    for (int g = 0; g < Cell::gates; ++g) gate[g] = gates[g];
    for (int s = 0; s < Cell::states; ++s) state[s] = states[s];
    for (int s = 0; s < Cell::states; ++s) d_next[s] = states[Cell::states + s];
    Cell::Ready ready;
    Cell::prepare(gate, state, ready);
    Cell::backward(ready, d_next, d_gate, d_state);
    for (int g = 0; g < Cell::gates; ++g) gates[g] = d_gate[g];
    for (int s = 0; s < Cell::states; ++s) states[s] = d_state[s];
"""


def one_unit(cell: Cell, backward: bool) -> str:
    """A kernel that does one step, or backward step, of one unit."""
    return f"""\
#include "math.cuh"
{cell_struct(cell, backward)}
extern "C" __global__ void one(float* gates, float* states) {{
{BACKWARD if backward else STEP}}}
"""


def printed_ptx(cell: Cell, backward: bool = False) -> Counter[str]:
    """The float instructions of a kernel that does one step, by name, as NVRTC gives them."""
    from cuda.bindings import nvrtc

    program = nvrtc.nvrtcCreateProgram(one_unit(cell, backward).encode(), b"one.cu", 0, [], [])[1]
    options = [b"--gpu-architecture=compute_80", b"--std=c++20", f"-I{cuda_headers()}".encode()]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log_text = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
    nvrtc.nvrtcGetProgramLog(program, log_text)
    assert int(status) == 0, log_text.decode()
    text = b" " * nvrtc.nvrtcGetPTXSize(program)[1]
    nvrtc.nvrtcGetPTX(program, text)
    lines = [line.replace(",", "").rstrip(";").split() for line in text.decode().splitlines() if ".f32" in line]
    free = ("ld.", "st.", "mov.", "abs.", "neg.")
    lines = [line for line in lines if ".f32" in line[0] and not line[0].startswith(free)]
    # a - b c stays two instructions in PTX; the assembler makes one of them.
    products = {line[1] for line in lines if line[0] == "mul.f32"}
    return Counter(line[0] for line in lines if not (line[0] == "sub.f32" and line[3] in products))


@compiled
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", cell_names())
def test_the_counted_cost_is_what_the_compiler_makes_of_the_text(name: str, backward: bool) -> None:
    cell = load_cell(name)
    found, cost = printed_ptx(cell, backward), backward_cost(cell) if backward else cell_cost(cell)
    special = sum(count for word, count in found.items() if ".approx" in word)
    assert special == cost.special
    assert found.total() - special == pytest.approx(cost.arithmetic, rel=0.1, abs=1)


@compiled
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", cell_names())
def test_backward_steps_compile_without_spills(name: str, arch: str) -> None:
    cell = load_cell(name)
    report = compile_source(Source(one_unit(cell, backward=True), "one", arch), cache=None).report
    assert (report.stack, report.spill_stores, report.spill_loads) == (0, 0, 0)
    assert report.registers <= 2 * (len(cell.gates) + len(cell.states)) + 2 * backward_cost(cell).live + 16


@compiled
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["constants", "everything"])
def test_unusual_cells_compile(name: str, backward: bool) -> None:
    assert printed_ptx(zoo()[name], backward)
