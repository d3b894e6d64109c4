"""The library schedule: its products as products of matrices, what the model says of it, where it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from library_calls import called
from pydantic import TypeAdapter

from kernelgen.build.cache import program_hash
from kernelgen.cells import cell_names, load_cell
from kernelgen.device import cublaslt
from kernelgen.emit.standalone import standalone
from kernelgen.errors import CompileError, ConfigError, EmulationError, InfeasibleError, LaunchError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.product import Factor, ProductCall
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.records.config import TunedConfig
from kernelgen.schedules import get
from kernelgen.schedules.shared.parameter_gradients import with_float_parameters
from kernelgen.tuning import selection
from kernelgen.tuning.plan import plan
from kernelgen.verify.cases import make_case
from kernelgen.verify.emulator import emulate_program
from kernelgen.verify.library import multiply

H200 = load_profile("h200")


def program_of(cell: str, shape: Shape, schedule: str = "library") -> Program:
    """The program of the model's best tiling."""
    definition, chosen = load_cell(cell), get(schedule)
    tiling = plan(definition, shape, H200, schedules=[schedule], direction=chosen.direction)[0]
    return chosen.program(definition, shape, H200, tiling)


def check(call: ProductCall, shape: Shape) -> int:
    """Make a product both ways; how many calls of the library it is."""
    extents, random = call.extents(shape), np.random.default_rng(0)
    flat, arrays = [], {}
    for factor in call.factors:
        sizes = [factor.sliced[axis][1] if axis in factor.sliced else extents[axis] for axis in factor.axes]
        flat.append(random.normal(size=int(np.prod(sizes))))
        arrays[factor.name] = flat[-1].copy().reshape(sizes)
    multiply(replace(call, math="float64"), shape, arrays)
    for gemm in call.at(shape):
        first, second = (1, 0) if gemm.swapped else (0, 1)
        called(gemm, flat[first], flat[second], flat[2])
    np.testing.assert_allclose(flat[2], arrays[call.result.name].ravel(), rtol=1e-12, atol=1e-12)
    return len(call.at(shape))


SHAPES = [Shape(3, 5, 1, 6), Shape(1, 4, 1, 8), Shape(3, 5, 2, 6), Shape(1, 1, 3, 4), Shape(2, 1, 1, 1)]


@pytest.mark.unit
@pytest.mark.parametrize("cell", cell_names())
def test_a_library_makes_the_products_that_the_emulator_does(cell: str) -> None:
    for shape in SHAPES:
        products = [*program_of(cell, shape).library]
        products += program_of(cell, replace(shape, save="gates"), "library_backward").library
        calls = [check(call, shape) for call in products]
        if shape.heads == 1:
            assert {*calls} == {1}, "with one head all gates are one product"


@pytest.mark.unit
def test_gates_that_lie_apart_are_products_of_their_own() -> None:
    shape = Shape(3, 5, 2, 6, save="gates")
    program = program_of("lstm", shape, "library_backward")
    assert [len(call.at(shape)) for call in program.library] == [4, 4]
    assert [gemm.adds for gemm in program.between[0].at(shape)] == [False, True, True, True]
    gru = program_of("gru", replace(shape, heads=1), "library_backward").products
    assert [call.first.name for call in gru] == ["d_wx", "d_inputless"]


@pytest.mark.unit
def test_what_no_library_makes_is_refused_in_words() -> None:
    shape, sizes = Shape(2, 3, 1, 4), {"b": "batch", "t": "seq", "d": "4"}

    def asked(first: str, second: str, result: str) -> ProductCall:
        factors = (Factor(name, axes, "float32") for name, axes in zip("xyz", (first, second, result), strict=True))
        return ProductCall(*factors, sizes, "float32")

    with pytest.raises(ConfigError, match="the axis t is in one array alone"):
        asked("bt", "bd", "bd").at(shape)
    with pytest.raises(ConfigError, match="no row of x lies side by side"):
        replace(
            asked("bdt", "d", "b"), first=Factor("x", "bdt", "float32", {"t": (0, 5)}), sizes={**sizes, "t": "1"}
        ).at(shape)
    with pytest.raises(EmulationError, match=r"needs an array y \[2, 4\]"):
        multiply(asked("bt", "bd", "td"), shape, dict.fromkeys("xyz", np.zeros((2, 3))))


@pytest.mark.unit
def test_the_order_of_launches() -> None:
    shape = Shape(3, 2, 1, 16, save="gates")
    forward, backward = program_of("lstm", shape), program_of("lstm", shape, "library_backward")
    product = forward.between[0]
    steps = [(forward.main, 0), (product, 0), (forward.main, 1), (product, 1), (forward.main, 2)]
    assert [call for call, _ in forward.launches(2)] == [call for call, _ in steps]
    assert [number for call, number in forward.launches(2) if call is forward.main] == [0, 1, 2]
    kinds = ["product" if isinstance(call, ProductCall) else call.source.entry for call, _ in backward.launches(1)]
    assert kinds == ["tilesmith_backward", "product", "tilesmith_backward", "tilesmith_bias_gradients", "product"]
    assert program_hash(forward) != program_hash(replace(forward, between=()))


@pytest.mark.unit
def test_the_model_takes_it_for_large_heads_alone() -> None:
    def best(units: int, batch: int, direction: str = "forward") -> str:
        shape = Shape(batch, 64, 1, units, save="gates" if direction == "backward" else "hidden")
        return plan(load_cell("lstm"), shape, H200, top=1, direction=direction)[0].schedule  # type: ignore[arg-type]

    assert {best(units, batch) for units in (512, 1024) for batch in (16, 256)}.isdisjoint({"library"})
    assert [best(4096, 256), best(8192, 16)] == ["library", "library"]
    assert best(4096, 256, "backward") == "library_backward"


@pytest.mark.unit
def test_without_the_library_another_schedule_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, shape = load_cell("lstm"), Shape(256, 4, 1, 4096)
    monkeypatch.setattr(cublaslt, "library", lambda: None)
    monkeypatch.setattr("kernelgen.build.compile.compile_program", lambda program: [_Sound(program)])
    monkeypatch.setattr("kernelgen.tuning.prepare.objection", lambda *given, **more: "")
    program, _ = selection.compiled(cell, shape, H200, "forward")
    assert not program.library
    only = [each for each in selection.candidates(cell, shape, H200, "forward") if each.program.library]
    monkeypatch.setattr(selection, "candidates", lambda *given, **more: only)
    with pytest.raises(InfeasibleError, match=r"multiplies with cuBLASLt.* Install nvidia-cublas"):
        selection.compiled(cell, shape, H200, "forward")
    with pytest.raises(LaunchError, match=r"libcublasLt\.so\.13 or \.12"):
        cublaslt.required()


class _Sound:
    """A binary that nothing is said against."""

    report = None

    def __init__(self, program: Program) -> None:
        self.program = program


@pytest.mark.unit
def test_no_file_of_kernels_runs_it_and_a_gpu_without_the_library_is_refused() -> None:
    with pytest.raises(CompileError, match=r"between products that cuBLASLt makes \(product\[bghd\] = multiplied"):
        standalone(program_of("lstm", Shape(3, 2, 1, 16)))
    cell, shape = load_cell("lstm"), Shape(3, 2, 1, 16)
    assert "the library schedule needs cuBLASLt, which" in get("library").refuses(cell, shape, load_profile("mi300x"))
    assert "needs products of bfloat16" in get("library").refuses(cell, shape, load_profile("t4"))


@pytest.mark.emulated
def test_gradients_of_parameters_in_float32() -> None:
    """Where R and b are float32, so are their gradients, and the same but for rounding."""
    cell, shape = load_cell("gru"), Shape(3, 4, 1, 16, save="gates")
    rounded = program_of("gru", shape, "library_backward")
    exact = with_float_parameters(rounded, cell, shape, H200)
    found = []
    for program in (rounded, exact):
        case = make_case(cell, shape, 1, direction="backward")
        outputs = case.poisoned(program.writes, program.extents(shape))
        for array in program.arguments(cell, shape).outputs:
            if array.name in ("d_r", "d_b"):
                outputs[array.name] = np.zeros(array.shape, numpy_dtype(array.dtype))
        emulate_program(program, shape, case.values(outputs, program.names, program.extents(shape)))
        found.append(outputs)
    for name in ("d_r", "d_b"):
        assert found[1][name].dtype == np.float32
        assert np.array_equal(found[1][name].astype(found[0][name].dtype), found[0][name])


@pytest.mark.unit
def test_records_say_the_products() -> None:
    program = program_of("lstm", Shape(3, 2, 1, 16, save="gates"), "library_backward")
    fields = TunedConfig.model_fields
    adapter = TypeAdapter(tuple[ProductCall, ...])
    assert {"between", "products"} <= {*fields}
    for products in (program.between, program.products):
        assert adapter.validate_json(adapter.dump_json(products), strict=True) == products
