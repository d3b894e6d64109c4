"""The table of kernel arguments against the generated kernels, and what it says of cells that lack a part."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, tanh
from kernelgen.errors import ConfigError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.arguments import arguments_of
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan

pytestmark = pytest.mark.unit

SHAPE = Shape(3, 5, 2, 16, save="gates")
BARE = Cell("bare", "No input and no bias", "none", ("h",), (Gate("a", input=False, bias=False),), lambda g, s: {
    "h": tanh(g.a + s.h)
})  # fmt: skip


@pytest.mark.parametrize(("direction", "schedules"), [("forward", None), ("forward", ["grid"]), ("backward", None)])
def test_the_table_agrees_with_the_generated_kernel(direction: Direction, schedules: list[str] | None) -> None:
    cell, profile = load_cell("gru"), load_profile("h200")
    tiling = plan(cell, SHAPE, profile, top=1, direction=direction, schedules=schedules)[0]
    program = get(tiling.schedule).program(cell, SHAPE, profile, tiling)
    arguments = program.arguments(cell, SHAPE)
    arrays = {array.name: array for array in (*arguments.inputs, *arguments.outputs, *arguments.workspaces)}
    made: set[str] = set()
    for source in (call.source for call in program.calls):
        match = re.search(rf"{source.entry}\(([^)]*)\)", source.text)
        assert match is not None
        declared = [" ".join(parameter.split()).rpartition(" ") for parameter in match[1].split(",")]
        kinds = {name: kind for kind, _, name in declared}
        assert tuple(kinds) == source.arguments
        assert {name for name, kind in kinds.items() if kind == "int"} <= {*arguments.numbers}
        assert source.writes == tuple(name for name, kind in kinds.items() if kind[-1] == "*" and kind[:5] != "const")
        for name in kinds.keys() & arrays.keys():
            assert name in source.writes or arrays[name].role in ("input", "optional") or name in made, name
        made |= {*source.writes}
    written = {*arguments.outputs, *arguments.workspaces}
    assert {array.name for array in written} == made


def test_shapes_and_numbers_of_a_gru() -> None:
    """GRU: 4 gates, of which one has no recurrent product and one no input; one state."""
    cell = load_cell("gru")
    inputs = len(cell.input_gates)
    forward, backward = arguments_of(cell, SHAPE, "forward"), arguments_of(cell, SHAPE, "backward", axes={"P": 6})
    shapes = {array.name: array.shape for array in (*forward.inputs, *forward.outputs)}
    assert shapes["wx"] == (3, 5, inputs, 2, 16)
    assert shapes["r"] == (len(cell.recurrent_gates), 2, 16, 16)
    assert shapes["last"] == (1, 3, 2, 16)
    assert shapes["gates"] == (len(cell.gates), 3, 5, 2, 16)
    assert (forward.numbers["batch"], forward.numbers["seq"]) == (3, 5)
    shapes = {array.name: array.shape for array in (*backward.outputs, *backward.workspaces)}
    assert shapes["d_wx"] == (3, 5, inputs, 2, 16)
    assert shapes["d_r"] == (len(cell.recurrent_gates), 2, 16, 16)
    assert shapes["d_b"] == (len(cell.bias_gates), 2, 16)
    assert (shapes["d_r_partial"], shapes["d_b_partial"]) == ((6, 1, 2, 16, 16), (6, 1, 2, 16))
    assert backward.numbers == {"batch": 3, "seq": 5, "num_partials": 6}
    assert {array.name for array in backward.inputs if array.optional and not array.empty} == {"initial", "d_last"}
    assert shapes["d_inputless"] == (3, 5, 1, 2, 16)
    assert {array.name: array.dtype for array in backward.workspaces} == {
        "d_inputless": "bfloat16",
        "d_r_partial": "float32",
        "d_b_partial": "float32",
        "multiplied": "bfloat16",
        "product": "float32",
        "hidden_before": "bfloat16",
    }
    words = {array.name: array.in_words for array in backward.workspaces}
    assert words["d_r_partial"] == "partial sum, gate, head, unit, unit"


def test_gates_with_a_bias_alone_are_not_saved() -> None:
    """LSTM with peepholes: 7 gates, of which 3 are nothing but a bias."""
    cell = load_cell("lstm_peephole")
    saved = arguments_of(cell, SHAPE, "forward").outputs[-1]
    assert (saved.name, saved.shape[0]) == ("gates", 4)
    for recompute in (False, True):
        backward = arguments_of(cell, replace(SHAPE, recompute=recompute), "backward", axes={"P": 1})
        shapes = {array.name: array.shape for array in (*backward.inputs, *backward.workspaces)}
        assert (shapes["gates"][0], shapes["b"][0]) == (0 if recompute else 4, 7)
        assert (shapes["d_r_partial"], shapes["d_b_partial"]) == ((1, 0, 2, 16, 16), (1, 3, 2, 16))
    assert next(a for a in arguments_of(load_cell("lstm"), SHAPE, "backward").inputs if a.name == "b").empty


def test_what_is_saved_decides_how_many_states_there_are() -> None:
    cell = load_cell("lstm")
    for save, count, gates in (("hidden", 1, 0), ("states", 2, 0), ("gates", 2, 4)):
        shape = Shape(1, 2, 1, 8, save=save)
        written = {array.name: array for array in arguments_of(cell, shape, "forward").outputs}
        assert (written["states"].shape[0], written["gates"].shape[0]) == (count, gates)
        assert written["gates"].empty is not bool(gates)
        arrays = {array.name: array.shape for array in arguments_of(cell, shape, "backward").inputs}
        assert (arrays["states"][0], arrays["d_states"][0], arrays["gates"][0]) == (2, count, 4)


def test_arrays_without_elements_are_null() -> None:
    forward, backward = arguments_of(BARE, SHAPE, "forward"), arguments_of(BARE, SHAPE, "backward", axes={"P": 1})
    assert {"wx", "b"} <= {array.name for array in forward.inputs if array.empty}
    assert [array.name for array in backward.outputs if array.empty] == ["d_wx", "d_b"]
    assert [array.name for array in backward.workspaces if array.empty] == ["d_b_partial"]


def test_a_program_has_the_arguments_of_its_calls() -> None:
    cell = load_cell("lstm")
    arguments = arguments_of(cell, SHAPE, "backward", ("seq", "d_wx", "r", "batch"))
    assert [array.name for array in arguments.inputs] == ["r"]
    assert [array.name for array in arguments.outputs] == ["d_wx"]
    assert arguments.numbers == {"batch": 3, "seq": 5}
    with pytest.raises(ConfigError, match=r"no forward kernel takes an argument 'd_wx'; those known are wx, r,"):
        arguments_of(cell, SHAPE, "forward", ("r", "d_wx"))
    with pytest.raises(
        ConfigError, match=r"a backward program must say the size of its axis P; it says those of \['Q'"
    ):
        arguments_of(cell, SHAPE, "backward", ("r", "num_partials"), {"Q": 1})
