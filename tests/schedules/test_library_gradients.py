"""dR by a library behind a recurrence of ours: the whole program in the emulator, and when it is taken."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_cublaslt import FakeLibrary, use_library

from kernelgen import schedules
from kernelgen.build.compile import compile_program
from kernelgen.cells import load_cell
from kernelgen.device import cublaslt, executor
from kernelgen.hardware.profile import load_profile
from kernelgen.program.product import SCRATCH_BYTES, ProductCall
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared import library_gradients, product_gradients
from kernelgen.schedules.shared.library_gradients import with_library_gradients
from kernelgen.schedules.shared.parameter_gradients import with_float_parameters
from kernelgen.tuning import selection
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_program

H200 = load_profile("h200")
SMALL = Shape(5, 9, 2, 32, "bfloat16", "gates")


def of_schedule(name: str, cell: str, shape: Shape) -> Program:
    tiling = plan(load_cell(cell), shape, H200, schedules=[name], direction="backward", top=1)[0]
    return schedules.get(name).program(load_cell(cell), shape, H200, tiling)


@pytest.fixture
def for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that takes no time, so that it makes whatever it can."""
    monkeypatch.setattr(library_gradients, "seconds_behind", lambda *given: 0.0)


@pytest.mark.emulated
@pytest.mark.usefixtures("for_nothing")
@pytest.mark.parametrize(
    ("schedule", "cell", "shape"),
    [
        ("cluster_backward", "lstm", SMALL),
        ("cluster_backward", "gru", SMALL),
        ("resident_backward", "lstm", replace(SMALL, dtype="float16", resets=True)),
        ("resident_backward", "slstm", replace(SMALL, head_dim=17, heads=1, dtype="float32", lengths=True)),
        ("grid_backward", "elman", replace(SMALL, head_dim=24, resets=True, lengths=True)),
    ],
)
def test_whole_passes_are_right(schedule: str, cell: str, shape: Shape) -> None:
    program = of_schedule(schedule, cell, shape)
    made = with_library_gradients(program, load_cell(cell), shape, H200)
    kinds = ["product" if isinstance(call, ProductCall) else call.source.entry for call, _ in made.launches(1)]
    assert kinds[:3] == ["tilesmith_backward", "tilesmith_hidden_before", "tilesmith_bias_gradients"]
    assert {*kinds[3:]} == {"product"}
    found = validate_program(load_cell(cell), shape, H200, made, seeds=(0, 1))
    assert {"d_wx", "d_r", "d_b"} <= found.errors.keys()


@pytest.mark.emulated
@pytest.mark.usefixtures("for_nothing")
@pytest.mark.parametrize(
    ("schedule", "dtype", "units"),
    [("cluster_backward", "bfloat16", 8), ("cluster_backward", "float16", 4), ("library_backward", "float32", 4)],
)
def test_biases_are_summed_by_wide_accesses(
    monkeypatch: pytest.MonkeyPatch, schedule: str, dtype: str, units: int
) -> None:
    """Which only large shapes have otherwise."""
    monkeypatch.setattr(product_gradients, "_units", lambda *given: units)
    shape = replace(SMALL, dtype=dtype)
    program = with_library_gradients(of_schedule(schedule, "gru", shape), load_cell("gru"), shape, H200)
    assert f"units = {units}" in program.then[-1].source.text
    assert "d_b" in validate_program(load_cell("gru"), shape, H200, program).errors


@pytest.mark.unit
def test_accesses_are_wide_where_all_multiprocessors_have_a_block() -> None:
    def units(heads: int, dim: int, dtype: str = "bfloat16") -> int:
        shape = Shape(16, 1024, heads, dim, dtype, "gates")
        call = product_gradients._bias_kernel(load_cell("lstm"), shape, H200, True)
        return next(width for width in (1, 2, 4, 8) if f"units = {width}" in call.source.text)

    assert [units(4, 512), units(4, 256), units(1, 512), units(1, 64), units(1, 33)] == [8, 4, 2, 2, 1]
    assert [units(4, 512, "float32"), units(1, 64, "float32"), units(1, 64, "float64")] == [4, 1, 1]


@pytest.mark.unit
def test_it_is_taken_where_it_is_expected_to_be_faster() -> None:
    def taken(heads: int, units: int, batch: int, cell: str = "lstm") -> bool:
        shape = Shape(batch, 1024, heads, units, "bfloat16", "gates")
        program = of_schedule("cluster_backward" if units > 128 else "resident_backward", cell, shape)
        return with_library_gradients(program, load_cell(cell), shape, H200) is not program

    assert taken(1, 512, 16)
    assert taken(1, 512, 64)
    assert taken(4, 256, 64)
    assert taken(2, 256, 16)
    assert not taken(2, 128, 16), "the library cuts no batch's steps"
    assert not taken(24, 32, 16)
    assert not taken(12, 64, 128)
    assert not taken(12, 64, 16, "gru"), "the recurrence leaves partial sums of R's products"
    library = of_schedule("library_backward", "lstm", SMALL)
    assert with_library_gradients(library, load_cell("lstm"), SMALL, H200) is library


@pytest.mark.unit
@pytest.mark.parametrize(("refuses", "asked"), [("", [12] * 3), ("others", [12, 4] * 3)])
def test_gates_are_multiplied_at_the_same_time(monkeypatch: pytest.MonkeyPatch, refuses: str, asked: list[int]) -> None:
    """Beside the sums of db; h is copied beside the recurrence. Each lane has its own part of the library's memory, and
    algorithms are those for the products of all gates, where they make those of one."""
    shape = Shape(16, 1024, 4, 256, "bfloat16", "gates")
    program = with_library_gradients(of_schedule("cluster_backward", "gru", shape), load_cell("gru"), shape, H200)
    turns = program.turns(shape)
    names = [str(call) if isinstance(call, ProductCall) else call.source.entry for call, _ in program.behind(1)]
    assert names[:2] == ["tilesmith_hidden_before", "tilesmith_bias_gradients"]
    assert turns == [(0, ()), (1, ()), (0, ()), (1, (0,)), (2, (0, 1)), (3, (0, 1))]
    spans = []
    fake = FakeLibrary(refuses=refuses)
    use_library(monkeypatch, fake)
    monkeypatch.setattr(executor, "gpu", SimpleNamespace(checked=lambda *given: 0, require_driver=lambda: _Driver()))
    monkeypatch.setattr(executor, "DeviceKernel", lambda *given: SimpleNamespace(prepare=lambda index: None))
    monkeypatch.setattr(executor, "launch_config", lambda launch: launch)
    launches = executor.Executable(program, [b""] * len(program.calls)).at(shape, lanes=True)
    assert launches.turns == tuple(turns)
    for kernel, _, _ in launches.steps[3:]:
        assert isinstance(kernel, cublaslt.PlannedProduct)
        spans.append(kernel.offsets[3])
        assert kernel.result.algorithm[0] == asked[-1]
    assert fake.batches == asked
    assert spans == [place * (SCRATCH_BYTES // 3 // 256 * 256) for place in range(3)]


class _Driver:
    """One that is asked for the current GPU."""

    def cuCtxGetCurrent(self) -> int:
        return 0


@pytest.mark.compiled
@pytest.mark.usefixtures("for_nothing")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_its_kernels_compile(cell: str) -> None:
    program = of_schedule("cluster_backward", cell, SMALL)
    for each in (program, with_float_parameters(program, load_cell(cell), SMALL, H200)):
        made = with_library_gradients(each, load_cell(cell), SMALL, H200)
        assert made.float_parameters == each.float_parameters
        for binary in compile_program(made)[1:]:
            assert not binary.report.spills


@pytest.mark.unit
@pytest.mark.parametrize("there", [True, False])
def test_kernels_for_pytorch_have_it_where_the_library_is(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(cublaslt, "library", lambda: object() if there else None)
    monkeypatch.setattr("kernelgen.build.compile.compile_program", lambda program: [_Sound(program)])
    monkeypatch.setattr("kernelgen.tuning.prepare.objection", lambda *given, **more: "")
    shape = Shape(64, 1024, 1, 512, "bfloat16", "gates")
    program, _ = selection.compiled(load_cell("lstm"), shape, H200, "backward", float_parameters=True)
    assert bool(program.products) == there
    assert program.float_parameters


class _Sound:
    """A binary that nothing is said against."""

    report = None

    def __init__(self, program: Program) -> None:
        self.program = program
