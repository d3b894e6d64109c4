"""Triton's kernels: every cell in Triton's interpreter against float64, and compiled for GPUs that are not here."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from zoo import zoo

from kernelgen.build.compile import Binary, compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import Cell
from kernelgen.errors import CompileError, EmulationError, InfeasibleError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, language_of, schedule_names
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated, validate_program

pytest.importorskip("triton", reason="Triton is not installed, so its kernels are not tried")

emulated, compiled = pytest.mark.emulated, pytest.mark.compiled

H200 = load_profile("h200")
SCHEDULES = [*schedule_names("forward", "triton"), *schedule_names("backward", "triton")]


def drawn(schedule: str, cell: Cell, shape: Shape) -> Tiling:
    """A random solution of the schedule's Problem, the same in every run."""
    chosen, seed = get(schedule), zlib.crc32(f"{schedule} {cell.name} {shape}".encode())
    (values,) = chosen.problem(cell, shape, H200).solution_set().sample(1, seed=seed)
    return chosen.tiling(cell, shape, H200, values)


def interpret(schedule: str, cell: Cell, shape: Shape, seeds: range = range(1)) -> dict[str, float]:
    """Interpret a drawn tiling; raises where the result is off. The errors by output."""
    validation = validate_emulated(cell, shape, drawn(schedule, cell, shape), H200, seeds, seq=shape.seq)
    assert validation.errors
    assert validation.worst <= validation.tolerance
    return validation.errors


KINDS = ("lstm", "gru", "slstm", "lstm_peephole", "bilinear", "alrnn", "cfc")
"""Cells that differ in what their gates receive; the others differ from them in their step alone."""


@emulated
@pytest.mark.parametrize(
    ("schedule", "name"),
    [(schedule, name) for schedule in SCHEDULES for name in (cell_names() if schedule == "triton_resident" else KINDS)],
)
def test_every_cell_is_right(schedule: str, name: str) -> None:
    errors = interpret(schedule, load_cell(name), Shape(3, 3, 1, 20, "bfloat16", "gates"))
    backward = get(schedule).direction == "backward"
    assert ("d_r" in errors) is ("d_initial" in errors) is backward
    assert ("last" in errors) is ("gates" in errors) is not backward


@emulated
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param("lstm", Shape(19, 3, 2, 16, "float16", "gates"), id="tiles of the batch"),
        pytest.param("gru", Shape(1, 1, 1, 1, "bfloat16", "gates"), id="a single number"),
        pytest.param("slstm", Shape(9, 4, 2, 34, "bfloat16", "hidden"), id="h alone"),
        pytest.param("lstm_peephole", Shape(3, 3, 1, 20, "float32", "gates"), id="float32"),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_edges_are_right(schedule: str, name: str, shape: Shape) -> None:
    # A seed says how many steps run and which inputs are null; a launch a step takes long to interpret.
    interpret(schedule, load_cell(name), shape, range(2) if "resident" in schedule else range(2, 3))


@emulated
@pytest.mark.parametrize("options", [{"recurrent_cut": True}, {"recurrent_clip": 0.05}], ids=str)
@pytest.mark.parametrize("schedule", schedule_names("backward", "triton"))
def test_what_the_backward_pass_does_with_the_recurrent_gradient(schedule: str, options: dict[str, object]) -> None:
    cell = load_cell("lstm").with_gradient(**options)  # type: ignore[arg-type]
    interpret(schedule, cell, Shape(3, 4, 1, 16, "bfloat16", "gates"))


@emulated
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_construct_of_the_language(schedule: str) -> None:
    interpret(schedule, zoo()["everything"], Shape(3, 4, 1, 16, "float32", "gates"))


def planted(program: Program, old: str, new: str) -> Program:
    """The program with a fault in its first kernel."""
    source = program.main.source
    assert old in source.text
    changed = replace(source, text=source.text.replace(old, new, 1))
    return replace(program, main=replace(program.main, source=changed))


@pytest.fixture(scope="module")
def right() -> tuple[Cell, Shape, Program]:
    """A kernel without a fault, which passes."""
    cell, shape = load_cell("lstm"), Shape(3, 4, 1, 16, "bfloat16", "gates")
    program = get("triton_resident").program(cell, shape, H200, drawn("triton_resident", cell, shape))
    validate_program(cell, shape, H200, program, range(1))
    return cell, shape, program


@emulated
@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("sigmoid(gate_f) + sigmoid", "sigmoid(gate_f) - sigmoid", ValidationError),
        ("h = new_h.to(tl.bfloat16)", "h = (new_h * 1.02).to(tl.bfloat16)", ValidationError),
        ("inside = (rows < batch) &", "inside = (rows < batch + 1) &", EmulationError),
        ("mask=inside)", "mask=inside & (own > 0))", ValidationError),
        ("index // 8 % 8 * 2 + index % 2", "index % 8 * 2 + index // 8 % 2", ValidationError),
        ("step(gate_i", "stop(gate_i", EmulationError),
    ],
)
def test_a_wrong_kernel_is_found(
    right: tuple[Cell, Shape, Program], old: str, new: str, error: type[Exception]
) -> None:
    cell, shape, program = right
    with pytest.raises(error):
        validate_program(cell, shape, H200, planted(program, old, new), range(1))


def compiled_lstm(schedule: str, shape: Shape, gpu: str, values: Mapping[str, int] | None = None) -> Binary:
    """The compiled recurrence of an LSTM, of the model's best tiling where no ``values`` are given."""
    profile, cell = load_profile(gpu), load_cell("lstm")
    if values is None:
        tiling = plan(cell, shape, profile, top=1, schedules=[schedule])[0]
    else:
        tiling = get(schedule).tiling(cell, shape, profile, values)
    return compile_source(get(schedule).program(cell, shape, profile, tiling).main.source)


@compiled
@pytest.mark.parametrize("gpu", ["a100-80gb", "h200", "b200", "rtx5090"])
def test_it_compiles_for_every_architecture_into_registers(gpu: str) -> None:
    assert compiled_lstm("triton_resident", Shape(16, 1024, 12, 32), gpu).report.local_memory == 0


@compiled
@pytest.mark.parametrize("batch_tile", [4, 8])
@pytest.mark.parametrize("schedule", ["triton_resident", "triton_resident_backward"])
def test_only_right_sides_of_products_pass_through_shared_memory(
    schedule: str, batch_tile: int, tmp_path: Path
) -> None:
    import triton.backends.nvidia as backend

    disassembler = Path(backend.__path__[0]) / "bin" / "nvdisasm"
    if not disassembler.exists():
        pytest.skip("this Triton brings no nvdisasm")
    values = {"batch_tile": batch_tile, "num_warps": 4, "num_stages": 1, "weights_in_registers": 1}
    made = compiled_lstm(schedule, Shape(16, 1024, 12, 64, "bfloat16", "gates"), "h200", values)
    assert made.report.local_memory == 0
    assert made.report.registers > 4 * 64 * 64 * 2 // (4 * 32 * 4)  # R's
    (tmp_path / "kernel.cubin").write_bytes(made.cubin)
    text = subprocess.run([disassembler, "-c", tmp_path / "kernel.cubin"], capture_output=True, text=True, check=True)
    # Two about the exchange of a step or, backward by the newest Triton, of each right side; and some before the loop,
    # by the version. Were all that a step reads and writes to change its layout, there would be 10 and more in the loop
    # alone.
    assert 2 <= text.stdout.count("BAR.SYNC") <= 8
    assert "HGMMA" not in text.stdout


@compiled
def test_a_source_that_takes_more_shared_memory_than_it_states_is_refused() -> None:
    cell, shape = load_cell("lstm"), Shape(16, 1024, 1, 32)
    (tiling,) = plan(cell, shape, H200, top=1, schedules=["triton_resident"])
    source = get("triton_resident").program(cell, shape, H200, tiling).main.source
    stated = f"SHARED_MEMORY = {tiling.resources.shared_memory}"
    assert stated in source.text
    small = replace(source, text=source.text.replace(stated, "SHARED_MEMORY = 100"))
    with pytest.raises(CompileError, match=r"takes [\d,]+ bytes of shared memory .* at most 100"):
        compile_source(small, cache=None)
    with pytest.raises(CompileError, match="refused 'tilesmith_forward' for sm_90a"):
        compile_source(replace(source, text=source.text.replace("step(", "stop(", 1)), cache=None)


@pytest.mark.unit
def test_no_tiling_is_planned_that_cannot_be() -> None:
    cell = load_cell("lstm")
    with pytest.raises(InfeasibleError, match=r"shared memory per block: at most 232,448 bytes .* at least"):
        plan(cell, Shape(16, 64, 1, 512), H200, schedules=["triton_resident"])
    with pytest.raises(InfeasibleError, match="does not recompute gates"):
        plan(cell, Shape(16, 64, 1, 32, recompute=True), H200, schedules=["triton_resident_backward"])
    with pytest.raises(InfeasibleError, match="needs sm_80 or newer"):
        plan(cell, Shape(16, 64, 1, 32, "float16"), load_profile("t4"), schedules=["triton_resident"])


@pytest.mark.unit
def test_languages_are_told_apart() -> None:
    cell, shape = load_cell("lstm"), Shape(16, 64, 1, 32)
    names: Callable[[str | None], set[str]] = lambda language: {  # noqa: E731
        language_of(get(tiling.schedule))
        for tiling in plan(cell, shape, H200, language=language)  # type: ignore[arg-type]
    }
    assert names("cuda") == {"cuda"}
    assert names("triton") == {"triton"}
    assert names(None) == {"cuda", "triton"}


@compiled
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_compiles_for_amd(schedule: str) -> None:
    cell, shape, profile = load_cell("lstm"), Shape(16, 1024, 12, 32, "bfloat16", "gates"), load_profile("mi300x")
    (tiling,) = plan(cell, shape, profile, top=1, schedules=[schedule])
    assert tiling.values["batch_tile"] >= 16
    assert tiling.resources.threads == 64 * tiling.values["num_warps"]
    source = get(schedule).program(cell, shape, profile, tiling).main.source
    for word in ("cuda", "ptx", "nvidia", "sm_"):
        assert word not in source.text.lower()
    binary = compile_source(source)
    assert binary.cubin[:4] == b"\x7fELF"
    assert int.from_bytes(binary.cubin[18:20], "little") == 224  # EM_AMDGPU
    assert 0 < binary.report.registers <= 512
    assert binary.report.local_memory == 0


@pytest.mark.unit
def test_amd_is_for_triton_alone() -> None:
    cell, profile = load_cell("lstm"), load_profile("mi300x")
    for direction in ("forward", "backward"):
        with pytest.raises(InfeasibleError, match=r"mi300x \(gfx942\) lacks"):
            plan(cell, Shape(16, 64, 1, 32), profile, direction=direction)  # type: ignore[arg-type]


@pytest.mark.unit
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape(4, 8, 1, 32, "tf32"), "takes bfloat16, float16, float32 only, not tf32"),
        (Shape(4, 8, 1, 32, lengths=True), "knows no lengths"),
        (Shape(4, 8, 1, 32, resets=True, lengths=True), "knows no resets and no lengths"),
        (Shape(4, 8, 1, 32, recompute=True), "does not recompute gates"),
    ],
    ids=str,
)
def test_what_they_do_not_honour_is_refused_by_name(direction: Direction, shape: Shape, words: str) -> None:
    with pytest.raises(InfeasibleError, match=words):
        plan(load_cell("lstm"), shape, load_profile("h200"), direction=direction, language="triton")
