"""How the engine of GPUs puts a chain together, without a GPU: its launches, its numbers and where its arrays lie."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fake_cublaslt import FakeLibrary, use_library  # noqa: E402

from kernelgen.cells import load_cell  # noqa: E402
from kernelgen.device import native  # noqa: E402
from kernelgen.device.executor import Launches, ProgramTurn, in_a_row  # noqa: E402
from kernelgen.hardware.profile import load_profile  # noqa: E402
from kernelgen.program.arguments import ArrayArgument  # noqa: E402
from kernelgen.program.lanes import Turn  # noqa: E402
from kernelgen.program.launch import Launch  # noqa: E402
from kernelgen.program.shape import Shape  # noqa: E402
from kernelgen.schedules.shared.matrix_product import MatrixProduct  # noqa: E402
from kernelgen.schedules.shared.moved_rows import MovedRows  # noqa: E402
from kernelgen.torch import device as of_device  # noqa: E402
from kernelgen.torch.device import DeviceEngine, Loaded, Single  # noqa: E402
from kernelgen.torch.engine import Layout, Link  # noqa: E402
from kernelgen.torch.library_links import OfLibrary  # noqa: E402

pytestmark = pytest.mark.unit


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> DeviceEngine:
    """One whose GPU is an H200 that nobody has; compiling finds nothing to do, and there is no library."""
    use_library(monkeypatch, None)
    profile = load_profile("h200")
    monkeypatch.setattr(of_device.gpu, "device", lambda index: SimpleNamespace(profile=lambda: profile))
    monkeypatch.setattr(of_device.gpu, "selected", lambda index: nullcontext())
    monkeypatch.setattr(of_device.gpu, "primary_context", lambda index: 0xC0)
    monkeypatch.setattr(of_device, "launch_config", lambda launch: ("config", launch))
    monkeypatch.setattr(
        of_device, "DeviceKernel", lambda *given: SimpleNamespace(name=given[1], prepare=lambda index: None)
    )
    found: Future[Any] = Future()
    found.set_result(SimpleNamespace(cubin=b""))
    monkeypatch.setattr(of_device, "_compilers", lambda: SimpleNamespace(submit=lambda *_: found))
    return DeviceEngine()


def test_a_chain_is_all_launches_in_a_row(engine: DeviceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = ArrayArgument("mail", ("W",), (100,), "int32", "workspace", False)
    empty = ArrayArgument("hidden", ("W",), (0,), "int32", "workspace", False)
    step = (SimpleNamespace(name="recurrence"), "config", ("wx", "initial", "mail", "hidden", "batch", np.int32(7)))
    numbers = {"batch": np.int32(5)}
    launch = Launch((4, 1, 1), 64, 0)
    loaded = Loaded(Launches((step,), {"mail": 400}, (launch,)), (mail, empty), numbers, program=None, device=0)  # type: ignore[arg-type]
    product = engine.product(MatrixProduct(15, 8, 24, "float16"), 0)
    turn = engine.moved_rows(MovedRows({"b": 3, "t": 5}, "tb", "bt", 16), 0)
    assert product is not None
    bound: list[Any] = []
    monkeypatch.setattr(Launches, "bound", lambda *given: bound.append(given))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 0, raising=False)
    links = [
        Link(product, {"a": "x", "b": "w", "out": "wx"}, {"batch": 5, "seq": 3, "turned": 1}),
        Link(loaded, {"wx": "wx", "initial": "second"}),
        Link(turn, {"from": "part", "to": "output"}),
    ]
    inside = {"second": ("starts", 64), "part": ("ends", 32)}
    engine.chain(links, Layout(("x", "w", "starts", "output"), inside, {"wx": 1000, "ends": 300}), 0)
    ((launches, names, values, index, _, memory),) = bound
    assert (names, values, index) == (("x", "w", "starts", "output"), {}, 0)
    kernels = [kernel.name for kernel, _, _ in launches.steps]
    assert kernels == ["tilesmith_matrix_product", "recurrence", "tilesmith_moved_rows"]
    assert [arguments for _, _, arguments in launches.steps] == [
        ("x", "w", 0, "wx", 15, 8, 24, 5, 3, 1),
        ("wx", "second", "1.mail", 0, 5, 7),
        ("part", 0, "output", 1, 1, 1, 3, 5, 0, 0, 1, 3, -1, -1),
    ]
    assert all(
        isinstance(one, str | np.int32) or one == 0 for _, _, arguments in launches.steps for one in arguments
    ), "a bare int is an address"
    assert launches.poisoned == {"1.mail": 400}
    assert launches.launches[1] == launch
    assert memory.offsets == {"wx": 0, "ends": 1024, "1.mail": 1536, "part": 1024 + 32}
    assert memory.inside == {"second": ("starts", 64)}
    again = engine.product(MatrixProduct(30, 16, 24, "float16"), 0)
    assert again is not None
    assert again.source == product.source  # one binary for many sizes


def kernels_of(engine: DeviceEngine, links: list[Link], layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launches of a chain, what each is in a word, and its memory."""
    bound: list[Any] = []
    monkeypatch.setattr(Launches, "bound", lambda *given: bound.append(given))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 0, raising=False)
    engine.chain(links, layout, 0)
    ((launches, *_, memory),) = bound
    names = [getattr(kernel, "name", "") or f"library's {kernel.arrays}" for kernel, _, _ in launches.steps]
    return launches, names, memory


def test_long_products_are_the_librarys(engine: DeviceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chain with ours: a bias that the library adds, steps that are copied first, and its memory, one for a
    lane."""
    use_library(monkeypatch, FakeLibrary(workspace=1000))
    into = engine.product(MatrixProduct(8192, 512, 128, "bfloat16"), 0)
    of_weight = engine.product(MatrixProduct(512, 128, 8192, "bfloat16", True, True), 0)
    short = engine.product(MatrixProduct(64, 128, 32, "bfloat16"), 0)
    assert (type(into), type(of_weight), type(short)) == (OfLibrary, OfLibrary, Single)
    one, steps = {"batch": 64, "seq": 128, "turned": 0}, {"batch": 64, "seq": 128, "turned": 2}
    links = [
        Link(into, {"a": "x", "b": "w", "bias": "b", "out": "wx"}, one),
        Link(short, {"a": "x", "b": "w", "out": "wx"}, one),
        Link(of_weight, {"a": "wx", "b": "x", "out": "d_w"}, steps, lane=1, after=(1,)),
        Link(into, {"a": "x", "b": "w", "out": "wx"}, one, lane=1),
    ]
    layout = Layout(("x", "w", "b", "d_w"), {}, {"wx": 4096})
    launches, names, memory = kernels_of(engine, links, layout, monkeypatch)
    assert names == [
        "library's ('b', 'a', 'out')",
        "tilesmith_matrix_product",
        "tilesmith_moved_rows",
        "library's ('b_rows', 'a', 'out')",
        "library's ('b', 'a', 'out')",
    ]
    arguments = [each for _, _, each in launches.steps]
    assert arguments[0] == ("w", "x", "wx", "lane 0.scratch", "b")
    assert arguments[2][:3] == ("x", 0, "lane 1.b_rows")
    assert arguments[3] == ("lane 1.b_rows", "wx", "d_w", "lane 1.scratch")
    assert arguments[4] == ("w", "x", "wx", "lane 1.scratch")
    assert [launch is None for launch in launches.launches] == [True, False, False, True, True]
    assert launches.turns == ((0, ()), (0, ()), (1, (1,)), (1, ()), (1, ()))
    assert {*memory.offsets} == {"wx", "lane 0.scratch", "lane 1.scratch", "lane 1.b_rows"}


@pytest.mark.parametrize(
    ("library", "kind"),
    [(None, Single), (FakeLibrary(refuses="all"), OfLibrary), (FakeLibrary(refuses="bias"), OfLibrary)],
)
def test_what_the_library_does_not_make_is_ours(
    library: Any, kind: Any, engine: DeviceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_library(monkeypatch, library)
    product = engine.product(MatrixProduct(1 << 16, 4096, 4096, "float16"), 0)
    assert isinstance(product, kind)
    link = Link(product, {"a": "x", "b": "w", "bias": "b", "out": "wx"}, {"batch": 64, "seq": 1024, "turned": 1})
    launches, names, memory = kernels_of(engine, [link], Layout(("x", "w", "b", "wx"), {}, {}), monkeypatch)
    assert names == ["tilesmith_matrix_product"]
    assert launches.steps[0][2] == ("x", "w", "b", "wx", 1 << 16, 4096, 4096, 64, 1024, 1)
    assert not memory.offsets


@pytest.mark.parametrize(
    ("batch", "seq", "dim", "better"),
    [
        (2048, 256, 64, True),  # Wx is four times x, and its bytes are what is waited for
        (16, 1024, 64, False),  # every step would take longer
        (16, 64, 256, False),  # R and W do not fit
    ],
)
def test_an_input_is_multiplied_inside_where_the_model_says_so(
    batch: int, seq: int, dim: int, better: bool, engine: DeviceEngine
) -> None:
    shape = Shape(batch, seq, 1, dim, "float16", inputs=dim)
    assert engine.multiplies_input(load_cell("lstm"), shape, 0) == better


@pytest.mark.parametrize(
    ("batch", "seq", "chunk"),
    [
        (16, 1024, 128),
        (16, 16, None),  # no shorter chunk
        (2048, 1024, None),  # a layer has the GPU to do
    ],
)
def test_layers_run_in_waves_where_the_model_says_so(
    batch: int, seq: int, chunk: int | None, engine: DeviceEngine
) -> None:
    shape = Shape(batch, seq, 1, 64, "bfloat16")
    assert engine.chunk_of_waves(load_cell("lstm"), shape, 4, 0, learning=False) == chunk


def test_lanes_go_to_the_launcher_by_the_places_of_calls() -> None:
    """Of programs with several calls, which run in one lane."""
    first, second = (Launches(((None, None, ()),) * count, {}, (None,) * count) for count in (2, 1))  # type: ignore[arg-type]
    turns = [ProgramTurn(), ProgramTurn(1, (0,)), ProgramTurn(0, (1,))]
    made = in_a_row([(first, {}), (first, {}), (second, {})], turns)
    assert made.turns == ((0, ()), (0, ()), (1, (1,)), (1, ()), (0, (3,)))
    turns = [ProgramTurn(0, (), 2), ProgramTurn(1, (0,), 3), ProgramTurn(0, (1,), 2)]
    made = in_a_row([(first, {}), (first, {}), (second, {})], turns)
    assert made.turns == ((0, ()), (2, (0,)), (1, (0,)), (3, (2,)), (0, (2,)))
    assert in_a_row([(first, {})]).turns == ()


def test_a_program_whose_calls_run_beside_each_other_waits_for_all_of_the_one_before() -> None:
    lanes = (Turn(), Turn(1), Turn(2, (0, 1)), Turn(1, (0,)))
    first, second = (Launches(((None, None, ()),) * count, {}, (None,) * count) for count in (1, 4))  # type: ignore[arg-type]
    second = replace(second, turns=lanes)
    made = in_a_row([(first, {}), (second, {}), (second, {}), (first, {})])
    assert made.turns == (
        *((0, ()),),
        *((0, (0,)), (1, (0,)), (2, (1, 2)), (1, (1,))),
        *((0, (1, 4, 3)), (1, (1, 4, 3)), (2, (5, 6)), (1, (5,))),
        *((0, (5, 8, 7)),),
    )
    assert in_a_row([(second, {})]).turns == lanes
    assert in_a_row([(second, {}), (first, {})], [ProgramTurn(), ProgramTurn(1, (0,))]).turns == (
        *((0, ()),) * 4,
        (1, (3,)),
    )


def test_where_arrays_lie_without_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher in C++ does is tested with it; this is what runs where it is missing."""
    monkeypatch.setattr(native, "launcher", lambda: None)
    monkeypatch.setattr("kernelgen.device.executor.gpu.selected", lambda index: nullcontext())
    monkeypatch.setattr("kernelgen.device.executor.stream_of", lambda handle: handle)
    started: list[Any] = []
    kernel = SimpleNamespace(start=lambda stream, config, *arguments: started.append((stream, *arguments)))
    launches = Launches(((kernel, None, ("x", "wx", "second", "third", np.int32(3))),))
    inside = {"second": ("starts", 64), "third": ("nothing", 64)}
    memory = native.Memory({"wx": 256}, lambda: 0x1000, inside)
    run = launches.bound(("x", "starts", "nothing"), {}, 0, lambda device: 9, memory)
    run((0x10, 0x2000, None))
    assert started == [(9, 0x10, 0x1100, 0x2040, 0, 3)]
