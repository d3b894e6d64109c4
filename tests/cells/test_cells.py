"""The cell language, the library of cells and users' files."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from click.testing import CliRunner

import kernelgen.cells
from kernelgen import schedules
from kernelgen.build.compile import compile_source
from kernelgen.cells import cell_names, language, load_cell
from kernelgen.cells.language import (
    Cell,
    Gate,
    equal,
    exp,
    log,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)
from kernelgen.cells.language import abs as absolute
from kernelgen.commands import main
from kernelgen.emit.cuda import cell_struct
from kernelgen.emit.numpy import FUNCTIONS, NumpyPrinter, numpy_backward, numpy_step
from kernelgen.emit.text import backward_equations, equations
from kernelgen.errors import CellError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.torch import rnn
from kernelgen.tuning.plan import plan
from kernelgen.verify import reference
from kernelgen.verify.inputs import random_inputs

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]


def make(step: Callable[[Any, Any], Any], **changes: Any) -> Cell:
    """A cell with states h and c and the gates a and b."""
    fields: dict[str, Any] = {"states": ("h", "c"), "gates": (Gate("a"), Gate("b")), **changes}
    words = {name: fields.pop(name, name) for name in ("name", "title", "paper")}
    return Cell(**words, step=step, **fields)


def good(gate: Any, state: Any) -> dict[str, Any]:
    return {"h": tanh(gate.a), "c": gate.b + state.c}


def by_numpy(x: Any) -> Any:
    """A function that a step calls."""
    return np.tanh(x)


def test_the_library_has_its_cells_in_the_gate_orders_of_pytorch() -> None:
    assert cell_names() == [
        "alrnn", "bilinear", "cfc", "elman", "elman_relu", "gru", "janet", "ligru", "lstm", "lstm_cifg", "lstm_nfg",
        "lstm_niaf", "lstm_nig", "lstm_noaf", "lstm_nog", "lstm_peephole", "ltc", "mgu", "slstm", "slstm_xlstm",
        "ugrnn",
    ]  # fmt: skip
    found = {name: load_cell(name) for name in cell_names()}
    assert all(cell.name == name for name, cell in found.items())
    assert [gate.name for gate in found["lstm"].gates] == ["i", "f", "g", "o"]
    assert [gate.name for gate in found["slstm"].gates] == ["i", "f", "z", "o"]
    assert found["slstm"].states == ("h", "c", "n", "m")
    gru = found["gru"]
    assert [gru.gates[index].name for index in gru.recurrent_gates] == ["r", "z", "g"]
    assert [gru.gates[index].name for index in gru.input_gates] == ["r", "z", "n"]
    assert [gru.gates[index].name for index in gru.bias_gates] == ["r", "z", "n", "g"]
    peephole = found["lstm_peephole"]
    assert peephole.recurrent_gates == peephole.input_gates == (0, 1, 2, 3)
    assert [gate.name for gate in peephole.gates] == ["i", "f", "g", "o", "p_i", "p_f", "p_o"]


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        (lambda g, s: {"h": g.a + g.b}, {}, "no expression for state 'c'"),
        (lambda g, s: {**good(g, s), "d": g.a}, {}, "'d', which is no state"),
        (lambda g, s: good(g, s) | {"c": g.b + sympy.Symbol("q")}, {}, "the symbol q"),
        (lambda g, s: good(g, s) | {"c": g.z}, {}, "gate.z, which is not declared"),
        (lambda g, s: good(g, s) | {"c": g.b + s.m}, {}, "state.m, which is not declared"),
        (lambda g, s: {"h": tanh(g.a), "c": s.c}, {}, "gate 'b' is used by no expression"),
        (lambda g, s: good(g, s) | {"c": sympy.sin(g.b)}, {}, "the function sin, which is not in the language"),
        (lambda g, s: good(g, s) | {"c": sympy.oo}, {}, "oo, which is not in the language"),
        (lambda g, s: good(g, s) | {"c": g.b * 1e39}, {}, "beyond float32"),
        (lambda g, s: good(g, s) | {"c": sympy.I * g.b}, {}, "I, which is not in the language"),
        (lambda g, s: good(g, s) | {"c": "b"}, {}, "'b' for state 'c', which is no expression"),
        (lambda g, s: good(g, s) | {"c": g.b > 0}, {}, "no number"),
        (lambda g, s: good(g, s) | {"c": max(g.b, 0)}, {}, "use where(condition, a, b), maximum or minimum"),
        (lambda g, s: good(g, s) | {"c": where(g.b == 0, 1, 2)}, {}, "for x == 0 write equal(x, 0)"),
        (lambda g, s: good(g, s) | {"c": where(g.b, 1, 2)}, {}, "where() needs a condition"),
        (lambda g, s: tanh(g.a), {}, "must return a dict"),
        (lambda g, s: (good(g, s), {"a": g.b}), {}, "'a' cannot name an intermediate value"),
        (good, {"gates": (Gate("a"), Gate("a"))}, "'a' is used twice"),
        (good, {"gates": (Gate("h"), Gate("b"))}, "'h' is used twice"),
        (good, {"gates": (Gate("a", False), Gate("b", False))}, "no gate has a recurrent product"),
        (good, {"gates": (Gate("a"), Gate("b", False, False, False))}, "gate 'b' receives nothing"),
        (good, {"gates": tuple(Gate(f"a{i}") for i in range(33))}, "33 gates"),
        (good, {"states": ()}, "there is no state"),
        (good, {"gates": (Gate("σ"), Gate("b"))}, "'σ' is no name"),
        (good, {"name": "my cell"}, "'my cell' is no name"),
        (good, {"title": "two\n#error lines"}, "the title must be one line"),
        (good, {"paper": "joined to the next line \\"}, "the paper must be one line"),
        (good, {"ranges": {"n": (0, 1)}}, "a range is given for 'n'"),
        (good, {"gates": (Gate("a"), Gate("b", bias=False)), "ranges": {"b": (0, 1)}}, "no state and no gate with a"),
        (good, {"ranges": {"c": (1, 0)}}, "the range of 'c' is empty"),
        (good, {"gain": 2}, "must be in (0, 1], not 2"),
        (good, {"states": ("h", "next_c")}, "'next_c' begins as those of generated code do"),
        (lambda g, s: good(g, s) | {"c": g.b(s.h * g.a)}, {}, "a second recurrent product, as a GRU does"),
        (lambda g, s: good(g, s) | {"c": np.eye(2) @ s.h + g.b}, {}, "multiply by a matrix"),
        (lambda g, s: good(g, s) | {"c": g.b @ s.h}, {}, "multiply by a matrix"),
        (lambda g, s: good(g, s) | {"c": s.c[0] + g.b}, {}, "index units: states are one number per unit"),
        (lambda g, s: good(g, s) | {"c": sum(s.c) + g.b}, {}, "run over units, as normalisation"),
        (lambda g, s: good(g, s) | {"c": g.b - s.c.mean()}, {}, "sums over units for a normalisation"),
        (lambda g, s: good(g, s) | {"c": sympy.Matrix([[g.b, s.c]])}, {}, "cannot have vectors or matrices"),
        (lambda g, s: good(g, s) | {"c": sympy.IndexedBase("c")[0] + g.b}, {}, "index over units"),
        (
            lambda g, s: good(g, s) | {"c": tanh(g)},
            {},
            "with the gates or the states as a whole; name one, as in gate.i",
        ),
        (lambda g, s: good(g, s) | {"c": g.b + s}, {}, "with the gates or the states as a whole"),
        (good, {"gates": ("a", "b")}, "every gate must be a Gate, not 'a'; write Gate(\"a\")"),
        (good, {"gates": (Gate("a"))}, 'gates must be a tuple such as (Gate("a"),), with its comma, not Gate('),
        (good, {"gates": None}, "gates must be a tuple"),
        (good, {"gates": (Gate("a", "input"), Gate("b"))}, "recurrent, input and bias must be True or False"),
        (good, {"gates": (Gate("µ"), Gate("b"))}, "'µ' is no name; use ASCII letters"),
        (good, {"states": "hc"}, "states must be a tuple such as (\"h\",), with its comma, not 'hc'"),
        (good, {"states": "h"}, "states must be a tuple such as (\"h\",), with its comma, not 'h'"),
        (good, {"states": ("h", "µ")}, "'µ' is no name; use ASCII letters"),
        (lambda g, s: (good(g, s), {"µ": g.b}), {}, "'µ' cannot name an intermediate value"),
        (None, {}, "the step must be a function of gate and state, not None"),
        (good, {"ranges": {"c": 1}}, "the range of 'c' must be a pair of numbers"),
        (good, {"gain": "0.5"}, "must be a number in (0, 1], not '0.5'"),
        (lambda g, s: good(g, s) | {"c": np.tanh(g.b)}, {}, "use kernelgen.cells.tanh instead"),
        (lambda g, s: good(g, s) | {"c": np.sqrt(exp(g.b))}, {}, "use kernelgen.cells.sqrt instead"),
        (lambda g, s: good(g, s) | {"c": np.maximum(g.b, 0)}, {}, "use where(condition, a, b), maximum or minimum"),
        (lambda g, s: good(g, s) | {"c": np.where(g.b > 0, g.b, 0)}, {}, "use where(condition, a, b)"),
        (lambda g, s: good(g, s) | {"c": math.tanh(g.b)}, {}, "use kernelgen.cells.tanh instead"),
        (lambda g, s: good(g, s) | {"c": math.exp(g.b)}, {}, "use kernelgen.cells.exp instead"),
        (lambda g, s: good(g, s) | {"c": math.fabs(g.b)}, {}, "use kernelgen.cells.abs instead"),
        (lambda g, s: good(g, s) | {"c": math.cos(g.b)}, {}, "use the functions of kernelgen.cells instead. They are"),
        (lambda g, s: good(g, s) | {"c": float(g.b)}, {}, "a function of numbers, arrays or tensors on a symbol"),
        (lambda g, s: good(g, s) | {"c": torch.tanh(g.b)}, {}, "use kernelgen.cells.tanh instead"),
        (lambda g, s: good(g, s) | {"c": torch.sigmoid(g.b)}, {}, "use kernelgen.cells.sigmoid instead"),
        (lambda g, s: good(g, s) | {"c": torch.nn.functional.relu(g.b)}, {}, "use kernelgen.cells.relu instead"),
        (lambda g, s: good(g, s) | {"c": torch.where(g.b > 0, g.b, 0)}, {}, "use kernelgen.cells.where instead"),
        (lambda g, s: good(g, s) | {"c": g.b.tanh()}, {}, "use kernelgen.cells.tanh instead"),
        (lambda g, s: good(g, s) | {"c": by_numpy(g.b)}, {}, "use kernelgen.cells.tanh instead"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused_with_its_reason(
    step: Callable[[Any, Any], Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CellError) as caught:
        make(step, **changes)
    assert message in str(caught.value)


def test_title_and_paper_may_be_left_out() -> None:
    cell = Cell("mine", states=("h", "c"), gates=[Gate("a"), Gate("b")], step=good)  # type: ignore[arg-type]
    assert (cell.title, cell.paper) == ("mine", "")
    assert cell == make(good, name="mine")
    assert equations(cell).startswith("mine: mine\n\nstates  h")
    assert cell_struct(cell).startswith("/// mine\nstruct")
    with pytest.raises(CellError, match="there is no state"):
        Cell("mine")
    with pytest.raises(CellError, match="there is no step"):
        Cell("mine", states=("h",), gates=(Gate("a"),))


def test_the_language_is_at_hand_beside_the_library() -> None:
    assert all(getattr(kernelgen.cells, name) is getattr(language, name) for name in language.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'sinh'"):
        _ = kernelgen.cells.sinh


def test_what_is_legal_and_seldom_meant_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="cell 'lstm' has the name of another cell of the library"):
        mine = make(good, name="lstm")
    with pytest.warns(UserWarning, match="R multiplies the first state, which is c; put h first"):
        make(good, states=("c", "h"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine.with_gradient(recurrent_cut=True)  # once is enough
        assert mine.with_gradient() is mine
        lstm = load_cell("lstm")
        Cell("lstm", "A copy", "", lstm.states, lstm.gates, lambda gate, state: lstm.step(gate, state))


AWKWARD = ("lambda", "in", "True", "None", "class", "new", "int", "float", "template", "I", "E", "exp", "gate", "state")


@pytest.mark.compiled
def test_names_that_are_words_of_python_and_of_cpp_are_honoured_everywhere() -> None:
    first, *gates = AWKWARD

    def step(gate: Any, state: Any) -> Any:
        a, new = sum(getattr(gate, name) for name in gates), getattr(state, first)
        return {first: tanh(a) * sigmoid(new), "h": sigmoid(a) + state.h}, {"return": sigmoid(a), "for": tanh(a)}

    def plain(gate: Any, state: Any) -> Any:
        a = sum(getattr(gate, f"g{index}") for index in range(len(gates)))
        return {"s": tanh(a) * sigmoid(state.s), "h": sigmoid(a) + state.h}

    with pytest.warns(UserWarning, match="R multiplies the first state, which is lambda"):
        cell = Cell("union", "", "", (first, "h"), tuple(Gate(name) for name in gates), step)
    with pytest.warns(UserWarning, match="R multiplies the first state"):
        same = Cell("plain", "", "", ("s", "h"), tuple(Gate(f"g{index}") for index in range(len(gates))), plain)
    shape = Shape(2, 3, 1, 16)
    inputs = random_inputs(same, shape)
    arrays = [inputs[name].astype(np.float64) for name in ("wx", "r", "b", "initial")]
    expected, made = reference.forward(same, *arrays), reference.forward(cell, *arrays)
    np.testing.assert_allclose(made.states, expected.states, rtol=1e-12)
    outside = np.ones_like(expected.states), np.ones_like(expected.last)
    wanted, found = reference.backward(same, *arrays, *outside), reference.backward(cell, *arrays, *outside)
    np.testing.assert_allclose(found.d_r, wanted.d_r, rtol=1e-10)
    states, _ = rnn(*map(torch.from_numpy, arrays), cell=cell)
    np.testing.assert_allclose(states, expected.states, rtol=1e-12)
    profile = load_profile("h200")
    for direction in ("forward", "backward"):
        tiling = plan(cell, shape, profile, direction=direction)[0]
        program = schedules.get(tiling.schedule).program(cell, shape, profile, tiling)
        assert compile_source(program.main.source).report.local_memory == 0


def test_a_fingerprint_follows_the_definition_and_nothing_else() -> None:
    cell = make(good)
    assert make(lambda gate, state: good(gate, state)) == cell
    assert make(good, ranges={"c": (0.0, 1.0)}).fingerprint == cell.fingerprint
    others = [
        make(lambda gate, state: {"h": tanh(gate.a), "c": gate.b - state.c}),
        make(good, gates=(Gate("a"), Gate("b", bias=False))),
        make(good, gates=(Gate("b"), Gate("a"))),
        make(good, name="other"),
        make(lambda gate, state: (good(gate, state), {"new": tanh(gate.a)})),
    ]
    assert len({cell, *others}) == 6


def test_fingerprints_and_sources_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib\n"
        "from kernelgen.cells import cell_names, load_cell\n"
        "from kernelgen.emit.cuda import cell_struct\n"
        "for name in cell_names():\n"
        "    cell = load_cell(name)\n"
        "    texts = [cell_struct(cell), cell_struct(cell, backward=True)]\n"
        "    print(cell.fingerprint, *(hashlib.sha256(text.encode()).hexdigest() for text in texts))\n"
    )

    def run(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
        return done.stdout.decode()

    first = run("1")
    assert len(first.split()) == 3 * len(cell_names())
    assert run("2") == first


def test_listing_cells_does_not_load_sympy() -> None:
    code = "import sys; from kernelgen.cells import cell_names; print(len(cell_names()), 'sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.split() == [b"21", b"False"]


@pytest.mark.parametrize(
    "function",
    [
        sigmoid, log_sigmoid, softplus, relu, tanh, exp, lambda x: log(x * x + 1), lambda x: sqrt(x * x + 1), absolute,
        lambda x: maximum(x, x * x), lambda x: minimum(2, x * x), lambda x: where(x > 0.3, x * x, tanh(x)),
        lambda x: where(equal(x, 0) | (x < -1), 0, sigmoid(x) / (1 + exp(x))),
    ],
)  # fmt: skip
def test_every_function_knows_its_derivative(function: Callable[[Any], Any]) -> None:
    x = sympy.Symbol("x", real=True)
    expression = function(x)
    space = {f"function_{name}": value for name, value in FUNCTIONS.items()}
    value, slope = (
        eval(f"lambda x: {NumpyPrinter().text(node)} + 0.0 * x", space) for node in (expression, expression.diff(x))
    )
    points, step = np.linspace(-3.037, 2.971, 41), 1e-6
    difference = (value(points + step) - value(points - step)) / (2 * step)
    np.testing.assert_allclose(slope(points), difference, rtol=1e-7, atol=1e-8)


def test_equations_read_like_the_definition() -> None:
    text = equations(load_cell("lstm"))
    assert "doi:10.1162/neco.1997.9.8.1735" in text
    assert "f = R_f h + Wx_f + b_f" in text
    assert "c' = c · σ(f) + σ(i) · tanh(g)" in text
    assert "h' = σ(o) · tanh(c')" in text
    gru = equations(load_cell("gru"))
    assert "n = Wx_n + b_n\n" in gru
    assert "g = R_g h + b_g\n" in gru
    assert "h' = h · σ(z) + (1 - σ(z)) · tanh(n + g · σ(r))" in gru
    assert "decay = exp(-|gap|)" in equations(load_cell("slstm"))


OWN = """\
from kernelgen.cells.language import Cell, Gate, tanh

def step(gate, state):
    return {"h": tanh(gate.a)}

MINE = Cell("mine", "Mine", "nowhere", ("h",), (Gate("a"),), step)
"""


def test_a_cell_of_ones_own_is_loaded_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert load_cell(f"{file}:MINE").name == "mine"
    assert load_cell(str(file)) == load_cell(f"{file}:MINE")
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"], "nothing is written beside a user's file"
    example = load_cell(f"{ROOT / 'examples' / 'own_cell.py'}:FASTGRNN")
    assert "h' = h · t0 + ((1 - t0) · σ(zeta) + σ(nu)) · tanh(a + n)" in equations(example)
    assert example.name not in cell_names()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (OWN, "MINNE", "own.py: the file has no 'MINNE'; known: MINE"),
        (OWN, "step", "own.py: step is a function, not a Cell"),
        ("x = 1\n", "MINE", "own.py: the file has no 'MINE'; it defines no Cell at all"),
        (OWN + "def broken(:\n", "MINE", "own.py:7: "),
        (OWN + "\n\nprint(undefined)\n", "MINE", "own.py:9: NameError: name 'undefined' is not defined"),
        (OWN.replace("tanh(gate.a)", "tanh(gate.q)"), "MINE", "own.py:4: cell 'mine': the step uses gate.q"),
        (OWN.replace('("h",)', '("h", "c")'), "MINE", "own.py:6: cell 'mine': the step gives no expression"),
        (OWN.replace("tanh(gate.a)", "1 / 0 + gate.a"), "MINE", "own.py:4: ZeroDivisionError"),
        ("raise SystemExit(3)\n", "MINE", "own.py:1: SystemExit: 3"),
        ("import missing_module_of_mine\n", "MINE", "own.py:1: ModuleNotFoundError"),
        ("x = '\0'\n", "MINE", "own.py:"),
        (OWN + "OTHER = MINE\n", "", "own.py: say which cell is meant, as own.py:NAME; the file defines MINE, OTHER"),
        ("x = 1\n", "", "own.py: the file defines no Cell; write NAME = Cell(...)"),
        (
            OWN.replace("tanh(gate.a)", "tahn(gate.a)"),
            "",
            "own.py:4: NameError: name 'tahn' is not defined; did you m",
        ),
        (OWN.replace("Gate, tanh", "Gate"), "", "name 'tanh' is not defined; write: from kernelgen.cells import tanh"),
        (OWN.replace(".language", "").replace("Gate, tanh", "Gate, tahn"), "", "; did you mean tanh"),
        (
            OWN.replace('Gate("a")', 'Gate("a", biass=True)'),
            "",
            "own.py:6: TypeError: Gate.__init__() got an unex",
        ),
        (OWN.replace('Gate("a")', 'Gate("a", biass=True)'), "", "'biass'; did you mean bias?"),
        (OWN.replace("(gate, state)", "(gate)"), "", "own.py:6: cell 'mine': the step must take two arguments, as in"),
    ],
)
def test_an_error_in_a_users_file_names_the_file_and_the_line(
    tmp_path: Path, text: str, name: str, message: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(CellError) as caught:
        load_cell(f"{file}:{name}" if name else str(file))
    assert message in str(caught.value).replace(f"{tmp_path}/", "")


def test_what_a_cells_file_prints_is_no_part_of_the_answer(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("print('hello')\n" + OWN)
    result = CliRunner().invoke(main, ["cells", "show", "--json", str(tmp_path / "own.py")])
    assert json.loads(result.stdout)["name"] == "mine"
    assert result.stderr == "hello\n"


def test_an_unknown_cell_is_answered_with_the_near_names(tmp_path: Path) -> None:
    with pytest.raises(CellError, match=r"unknown cell 'lsmt'; did you mean lstm"):
        load_cell("lsmt")
    with pytest.raises(CellError, match="unknown cell 'language'"):
        load_cell("language")
    with pytest.raises(CellError, match=r"cannot read the cell file .*none\.py: No such file"):
        load_cell(f"{tmp_path / 'none.py'}:X")


def test_every_public_function_is_named_in_the_message_about_others() -> None:
    names = {name for name in language.__all__ if name not in ("Cell", "Gate")}
    with pytest.raises(CellError) as caught:
        make(lambda g, s: good(g, s) | {"c": sympy.cosh(g.b)})
    assert names <= set(str(caught.value).replace(",", "").split())


def test_the_documentation_shows_the_library_and_the_example_as_they_are() -> None:
    text = (ROOT / "docs" / "cells.md").read_text()
    library = (ROOT / "docs" / "cells_library.md").read_text()
    for name in cell_names():
        cell = load_cell(name)
        for line in equations(cell).splitlines():
            assert line in library, f"{name}: {line}"
        orders = [
            [cell.gates[gate].name for gate in order]
            for order in (cell.input_gates, cell.recurrent_gates, cell.bias_gates)
        ]
        columns = [f"[{name}](#{name})", cell.title, *(", ".join(order) or "-" for order in (cell.states, *orders))]
        assert f"| {' | '.join(columns)} |\n" in library
    for line in backward_equations(load_cell("lstm")):
        assert f"    {line}\n" in text
    example = (ROOT / "examples" / "own_cell.py").read_text()
    assert example[example.index("from kernelgen") :] in text


def test_words_of_python_and_cpp_are_names_like_others() -> None:
    """Steps that reach them by getattr: every generated text puts something before a name."""
    names = ("lambda", "True", "int", "float", "gate", "t0")

    def step(gate: Any, state: Any) -> dict[str, Any]:
        total = sum(tanh(getattr(gate, name)) for name in names)
        return {"class": 0.5 * getattr(state, "class") + 0.125 * total}

    strange = Cell("strange", "Strange", "none", ("class",), tuple(Gate(name) for name in names), step)
    plain_names = tuple("abcdef")
    plain = Cell(
        "plain",
        "Plain",
        "none",
        ("h",),
        tuple(Gate(name) for name in plain_names),
        lambda gate, state: {"h": 0.5 * state.h + 0.125 * sum(tanh(getattr(gate, name)) for name in plain_names)},
    )
    gates = [np.array([0.1 * index]) for index in range(1, 7)]
    state = [np.array([0.7])]
    np.testing.assert_allclose(numpy_step(strange)(gates, state), numpy_step(plain)(gates, state))
    np.testing.assert_allclose(
        numpy_backward(strange)(gates, state, state)[0], numpy_backward(plain)(gates, state, state)[0]
    )
    text = cell_struct(strange, backward=True)
    for name in names:
        assert f"const float gate_{name} = gate[{names.index(name)}];" in text
