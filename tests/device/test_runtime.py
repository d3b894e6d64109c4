"""The runtime without a GPU: what a call checks, how arrays of any library are read, finding the driver."""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, tanh
from kernelgen.device import arrays, executor, gpu, launcher, runtime
from kernelgen.device.arrays import Description, ForeignLibrary
from kernelgen.device.measure import summarise
from kernelgen.device.runtime import BackwardKernel, ForwardKernel, Kernel, load
from kernelgen.errors import LaunchError
from kernelgen.program.launch import Launch, LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.task import Direction
from kernelgen.schedules.shared.entries import PARTIAL_SUMS, backward_parameters, forward_parameters
from kernelgen.tuning.tune import save, tune

pytestmark = pytest.mark.unit

BARE = Cell("bare", "No input and no bias", "none", ("h",), (Gate("a", input=False, bias=False),), lambda g, s: {
    "h": tanh(g.a + s.h)
})  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "capability", "runs"),
    [
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_90a", (8, 9), False),
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 9), True),
        ("sm_89", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_120", (12, 0), True),
        ("sm_100a", (10, 3), False),
        ("gfx942", (9, 4), False),
    ],
)
def test_which_gpus_run_a_binary(arch: str, capability: tuple[int, int], runs: bool) -> None:
    assert gpu.runs_on(arch, capability) is runs


@pytest.mark.skipif(gpu.why_no_gpu() is None, reason="this machine has a GPU")
def test_without_a_driver_everything_says_so(tuned: Path) -> None:
    for attempt in (gpu.require_driver, lambda: gpu.device(0), lambda: runtime.load(tuned)):
        with pytest.raises(LaunchError, match=r"no GPU to run on: .*tilesmith gpus"):
            attempt()


def test_a_failed_driver_call_is_told_in_words_and_a_lost_context_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import driver

    monkeypatch.setattr(driver, "cuGetErrorString", lambda status: (0, b"something happened"))

    result = driver.CUresult
    assert gpu.checked((result.CUDA_SUCCESS, 7), "asking") == 7
    assert gpu.checked((result.CUDA_SUCCESS, 7, 8), "asking") == (7, 8)
    for status, kind in (
        (result.CUDA_ERROR_ILLEGAL_ADDRESS, gpu.DeviceFault),
        (result.CUDA_ERROR_OUT_OF_MEMORY, LaunchError),
    ):
        with pytest.raises(
            LaunchError, match=rf"running the kernel failed: something happened \({status.name}\)"
        ) as caught:
            gpu.checked((status,), "running the kernel")
        assert type(caught.value) is kind
        assert getattr(caught.value, "fatal", False) is (kind is gpu.DeviceFault)


def test_a_summary_interpolates_its_percentiles() -> None:
    summary = summarise([float(i) for i in range(101)][::-1])
    assert (summary.median_ms, summary.p10_ms, summary.p90_ms, summary.runs) == (50.0, 10.0, 90.0, 101)
    assert summarise([1.0, 2.0]).median_ms == 1.5
    for bad in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            summarise(bad)


def test_a_launch_counts_blocks_where_cuda_core_counts_clusters() -> None:
    config = launcher.launch_config(Launch((12, 2, 1), 256, 1000))
    assert (tuple(config.grid), tuple(config.block), config.shmem_size) == ((12, 2, 1), (256, 1, 1), 1000)
    with pytest.raises(LaunchError, match="12 blocks cannot be cut into clusters of 8"):
        launcher.launch_config(Launch((12, 1, 1), 256, 0, cluster=8))


# ---- calls ----


class _NumpyLibrary(ForeignLibrary):
    """NumPy arrays that pass for arrays on GPU 0."""

    name = "NumPy"

    def describe(self, array: Any) -> Description:
        found = super().describe(array)
        return Description(found.shape, found.dtype, 0, found.contiguous)

    def of(self, dtype: str) -> _NumpyLibrary:
        return _NumpyLibrary(np.dtype(dtype))

    def fits(self, array: Any, shape: tuple[int, ...], device: int) -> bool:
        return bool(array.shape == shape and array.dtype == self._dtype and array.flags.c_contiguous and device == 0)

    def pointer(self, array: Any) -> int:
        return int(array.ctypes.data)

    def empty(self, shape: tuple[int, ...], device: int) -> Any:
        return np.empty(shape, self._dtype)


class _Buffer:
    """Memory of a GPU, which nobody touches."""

    def __init__(self, size: int) -> None:
        self.size, self.pointer = size, 1 << 20

    def close(self) -> None: ...


class _Driver:
    """A driver with one context."""

    def cuCtxGetCurrent(self) -> tuple[int, int]:
        return 0, 77


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace the GPU by a list of what was launched."""
    seen: list[tuple[Any, ...]] = []

    class Recorder:
        def __init__(self, *_: Any) -> None: ...

        def prepare(self, index: int) -> None: ...

        def require_room(self, launch: Launch, shape: Shape) -> None:
            seen.append(("room", launch.cooperative, shape.batch))

        def start(self, *arguments: Any) -> None:
            seen.append(arguments)

    monkeypatch.setattr(executor, "DeviceKernel", Recorder)
    monkeypatch.setattr(gpu, "DeviceBuffer", _Buffer)
    monkeypatch.setattr(gpu, "current", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(runtime, "stream_of", lambda handle: handle)
    monkeypatch.setattr(runtime, "library_of", lambda array, dtype: _NumpyLibrary(np.dtype(np.float16)))
    monkeypatch.setattr(gpu, "require_driver", _Driver)
    monkeypatch.setattr(gpu, "primary_context", lambda index: 77)
    return seen


FORWARD_NAMES = tuple(parameter.name for parameter in forward_parameters(Shape(1, 1, 1, 1)))
BACKWARD_NAMES = tuple(parameter.name for parameter in backward_parameters(Shape(1, 1, 1, 1), PARTIAL_SUMS))
SUM_NAMES = ("d_wx", "d_r_partial", "d_b_partial", "states", "initial", "d_r", "d_b", "batch", "seq", "num_partials")


def _call(entry: str, names: tuple[str, ...]) -> KernelCall:
    return KernelCall(Source("", entry, "sm_90a", names), LaunchRule(("heads", "batch", "1"), 64, 0))


def _kernel(
    cell: str | Cell = "lstm",
    save: str = "hidden",
    direction: Direction = "forward",
    names: tuple[str, ...] | None = None,
    recompute: bool = False,
) -> Kernel:
    """A kernel of a block for each sequence. names: of the arguments of the first call, where they are others."""
    shape = Shape(4, 5, 2, 16, "float16", save, recompute)
    definition = load_cell(cell) if isinstance(cell, str) else cell
    if direction == "forward":
        program = Program("forward", _call("tilesmith_forward", names or FORWARD_NAMES))
    else:
        calls = _call("tilesmith_backward", names or BACKWARD_NAMES), _call("tilesmith_sums", SUM_NAMES)
        program = Program("backward", calls[0], calls[1:], {"P": "batch"})
    return runtime.KERNELS[direction](program, [b""] * len(program.calls), definition, shape)


def _inputs(kernel: Kernel, batch: int = 4, seq: int = 5) -> list[Any]:
    """The inputs that may not be null, in order."""
    inputs = kernel.arguments(replace(kernel.shape, batch=batch, seq=seq)).inputs
    return [np.zeros(argument.shape, np.float16) for argument in inputs if not (argument.optional or argument.empty)]


def test_a_call_hands_over_addresses_in_the_order_of_the_contract(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel(save="gates")
    wx, r, b = _inputs(kernel)
    initial = np.zeros((2, 4, 2, 16), np.float16)
    result = kernel(wx, r, b, initial, stream=3)
    stream, config, *arguments = launches[0]
    assert stream == 3
    assert tuple(config.grid) == (2, 4, 1)
    given = {"wx": wx, "r": r, "b": b, "initial": initial, **result._asdict()}
    wanted = {name: array.ctypes.data for name, array in given.items()} | {"batch": 4, "seq": 5}
    found = dict(zip(FORWARD_NAMES, arguments, strict=True))
    assert found == dict.fromkeys(FORWARD_NAMES, 0) | wanted
    assert all(isinstance(found[name], np.int32) for name in ("batch", "seq"))
    assert [array.shape for array in result] == [(2, 4, 5, 2, 16), (2, 4, 2, 16), (4, 4, 5, 2, 16)]


def test_batch_and_seq_may_change_from_call_to_call(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel("gru")
    for batch, seq in ((4, 5), (1, 9), (4, 5), (7, 1)):
        result = kernel(*_inputs(kernel, batch, seq))
        assert result.states.shape == (1, batch, seq, 2, 16)
        assert result.gates is None
        _, config, *arguments = launches[-1]
        found = dict(zip(FORWARD_NAMES, arguments, strict=True))
        assert (found["batch"], found["seq"], found["initial"], found["gates"]) == (batch, seq, 0, 0)
        assert tuple(config.grid) == (2, batch, 1)


def test_outputs_may_be_given(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel()
    inputs = _inputs(kernel)
    out = (np.zeros((1, 4, 5, 2, 16), np.float16), np.zeros((2, 4, 2, 16), np.float16), None)
    result = kernel(*inputs, out=out)
    assert result.states is out[0]
    found = dict(zip(FORWARD_NAMES, launches[0][2:], strict=True))
    assert [found[name] for name in result._fields] == [out[0].ctypes.data, out[1].ctypes.data, 0]
    with pytest.raises(LaunchError, match=r"out must be \(states, last, gates\)"):
        kernel(*inputs, out=out[0])
    with pytest.raises(LaunchError, match="last is missing"):
        kernel(*inputs, out=(out[0], None, None))
    with pytest.raises(LaunchError, match="gates must be None: this kernel writes none"):
        kernel(*inputs, out=(out[0], out[1], out[1]))
    with pytest.raises(LaunchError, match=r"states must be .*\[1, 4, 5, 2, 16\].*not float16 \[2, 4, 2, 16\]"):
        kernel(*inputs, out=(out[1], out[1], None))


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (0, lambda a: a[:, :, :3].copy(), r"wx must be .*\[4, 5, 4, 2, 16\], not float16 \[4, 5, 3, 2, 16\]"),
        (0, lambda a: a[0], r"wx must be \[B, T, 4, H, D\]"),
        (0, lambda a: a[:, :0], "B and T of at least 1"),
        (0, lambda a: a.astype(np.float32), "wx must be a C-contiguous float16 array"),
        (1, lambda a: a.swapaxes(2, 3), "r must be a C-contiguous .*not C-contiguous"),
        (1, lambda a: a.astype(np.float32), r"r must be .* not float32"),
        (2, lambda a: a[:2].copy(), r"b must be .*\[4, 2, 16\].*not float16 \[2, 2, 16\]"),
        (2, lambda a: None, r"b is missing: it must be a float16 array \[4, 2, 16\]"),
        (2, lambda a: types.SimpleNamespace(shape=(4, 2, 16), dtype="x"), "b must be .*SimpleNamespace"),
    ],
)
def test_a_wrong_array_is_named_with_what_it_should_be(
    launches: list[tuple[Any, ...]], which: int, change: Any, message: str
) -> None:
    kernel = _kernel()
    inputs = _inputs(kernel)
    inputs[which] = change(inputs[which])
    with pytest.raises(LaunchError, match=message):
        kernel(*inputs)
    assert not launches


# ---- backward kernels ----


def test_a_backward_call_hands_over_addresses_by_name(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel("gru", "gates", "backward")
    for batch, seq in ((4, 5), (1, 9)):
        r, states, gates, d_states = _inputs(kernel, batch, seq)
        initial = d_last = np.zeros((1, batch, 2, 16), np.float16)
        result = kernel(r, initial, states, gates, d_states, d_last, stream=3)
        shapes = [(batch, seq, 3, 2, 16), (3, 2, 16, 16), (4, 2, 16), (1, batch, 2, 16)]
        assert [array.shape for array in result] == shapes
        assert {array.dtype.name for array in result} == {"float16"}
        given = {"r": r, "initial": initial, "states": states, "gates": gates, "d_states": d_states, "d_last": d_last}
        given |= result._asdict()
        wanted = {name: array.ctypes.data for name, array in given.items()} | {"batch": batch, "seq": seq}
        found: dict[str, Any] = {}
        for (stream, config, *arguments), names in zip(launches[-2:], (BACKWARD_NAMES, SUM_NAMES), strict=True):
            assert (stream, tuple(config.grid)) == (3, (2, batch, 1))
            now = dict(zip(names, arguments, strict=True))
            assert found.keys() & now.keys() == {name for name in found if name in now and found[name] == now[name]}
            found |= now
        assert {name: found[name] for name in wanted} == wanted
        assert found["num_partials"] == batch


def test_what_lies_between_the_calls_is_memory_of_the_stream(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel("gru", "gates", "backward")
    r, *inputs = _inputs(kernel)
    for stream in (3, 3, 4):
        kernel(r, None, *inputs, stream=stream)
    found = [dict(zip(BACKWARD_NAMES, launch[2:], strict=True)) for launch in launches[::2]]
    sums_of_r = 4 * 4 * 1 * 2 * 16 * 16  # float32, of 4 blocks, a gate, 2 heads
    assert all(each["d_b_partial"] - each["d_r_partial"] == sums_of_r for each in found)
    assert sorted(kernel._workspace._buffers) == [(0, 3), (0, 4)]
    (first, _) = kernel._workspace._buffers.values()
    kernel(r, None, *_inputs(kernel, 9)[1:], stream=3)
    assert kernel._workspace._buffers[0, 3].size > first.size


def test_what_must_start_poisoned_is_filled_before_every_run(
    launches: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "launch_config", lambda launch: launch)
    monkeypatch.setattr(gpu, "fill", lambda *given: launches.append(("fill", *given)))
    names = (*FORWARD_NAMES[:-2], "mail", *FORWARD_NAMES[-2:])
    call = KernelCall(
        Source("", "k", "sm_90a", names), LaunchRule(("heads * 3", "batch", "1"), 64, 0, cooperative=True)
    )
    shape = Shape(4, 5, 2, 16, "float16")
    kernel = ForwardKernel(Program("forward", call, axes={"W": "batch * 100"}), [b""], load_cell("lstm"), shape)
    for _ in range(2):
        kernel(*_inputs(kernel), stream=3)
    kernel(*_inputs(kernel, 2), stream=3)
    rooms = [each for each in launches if each[0] == "room"]
    assert rooms == [("room", True, 4), ("room", True, 2)]
    runs = [each for each in launches if each[0] != "room"]
    for fill, start, batch in zip(runs[::2], runs[1::2], (4, 4, 2), strict=True):
        address = dict(zip(names, start[2:], strict=True))["mail"]
        assert fill == ("fill", address, 0xFF, batch * 400, 3)


@pytest.mark.parametrize(("fit", "message"), [(1, None), (0, "is 264 blocks.*at the same time.*room for 0 ")])
def test_a_launch_whose_blocks_do_not_fit_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, fit: int, message: str | None
) -> None:
    from cuda.bindings import driver

    done = driver.CUresult.CUDA_SUCCESS
    monkeypatch.setattr(driver, "cuKernelGetFunction", lambda kernel: (done, 1))
    monkeypatch.setattr(driver, "cuOccupancyMaxActiveBlocksPerMultiprocessor", lambda *given: (done, 2 * fit))
    monkeypatch.setattr(driver, "cuCtxGetDevice", lambda: (done, 0))
    monkeypatch.setattr(driver, "cuDeviceGetAttribute", lambda *given: (done, 132))
    monkeypatch.setattr(gpu, "require_driver", lambda: driver)
    kernel: Any = types.SimpleNamespace(_kernel=types.SimpleNamespace(handle=0), entry="k")
    launch, shape = Launch((132, 2, 1), 256, 1000, cooperative=True), Shape(16, 8, 1, 1024)
    with pytest.raises(LaunchError, match=message) if message else contextlib.nullcontext():
        launcher.DeviceKernel.require_room(kernel, launch, shape)


def test_what_a_cell_does_not_have_is_none(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel(BARE, "hidden", "backward")
    r, states, gates, d_states = _inputs(kernel)
    assert d_states.shape == (1, 4, 5, 2, 16)
    result = kernel(r, None, states, gates, d_states)
    assert (result.d_wx, result.d_b) == (None, None)
    found = dict(zip(BACKWARD_NAMES, launches[0][2:], strict=True))
    assert {found[name] for name in ("initial", "d_last", "d_wx", "d_b_partial")} == {0}
    out = (None, result.d_r, None, result.d_initial)
    assert kernel(r, None, states, gates, d_states, out=out).d_initial is result.d_initial
    with pytest.raises(LaunchError, match=r"out must be \(d_wx, d_r, d_b, d_initial\)"):
        kernel(r, None, states, gates, d_states, out=out[1:])
    with pytest.raises(LaunchError, match="d_b must be None: this kernel writes none"):
        kernel(r, None, states, gates, d_states, out=(None, result.d_r, result.d_r, result.d_initial))
    with pytest.raises(LaunchError, match=r"d_r must be a C-contiguous float16 array \[1, 2, 16, 16\].*float32"):
        kernel(r, None, states, gates, d_states, out=(None, result.d_r.astype(np.float32), None, result.d_initial))


def test_a_gate_that_is_a_bias_alone_needs_the_bias(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel("lstm_peephole", "gates", "backward")
    r, b, states, gates, d_states = _inputs(kernel)
    assert gates.shape[0] == 4
    kernel(r, None, states, gates, d_states, b=b)
    assert dict(zip(BACKWARD_NAMES, launches[0][2:], strict=True))["b"] == b.ctypes.data
    with pytest.raises(LaunchError, match=r"b is missing: it must be a float16 array \[7, 2, 16\]"):
        kernel(r, None, states, gates, d_states)


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (1, lambda a: a[:1].copy(), r"states must be .*\[2, 4, 5, 2, 16\], not float16 \[1, 4, 5, 2, 16\]"),
        (1, lambda a: a[0], r"states must be \[2, B, T, H, D\]"),
        (2, lambda a: a[:3].copy(), r"gates must be .*\[4, 4, 5, 2, 16\].*of NumPy as states is, not float16 \[3, "),
        (2, lambda a: None, r"gates is missing: it must be a float16 array \[4, 4, 5, 2, 16\]"),
        (3, lambda a: a[:1].copy(), r"d_states must be .*\[2, 4, 5, 2, 16\]"),
    ],
)
def test_a_wrong_array_of_a_backward_call_is_named(
    launches: list[tuple[Any, ...]], which: int, change: Any, message: str
) -> None:
    kernel = _kernel("lstm", "gates", "backward")
    inputs = _inputs(kernel)
    inputs[which] = change(inputs[which])
    with pytest.raises(LaunchError, match=message):
        kernel(inputs[0], None, *inputs[1:])
    assert not launches


def test_a_kernel_that_computes_gates_again_takes_what_they_come_from(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel("gru", "states", "backward", recompute=True)
    wx, r, b, states, d_states = _inputs(kernel)
    kernel(r, None, states, None, d_states, wx=wx, b=b)
    found = dict(zip(BACKWARD_NAMES, launches[0][2:], strict=True))
    assert (found["wx"], found["b"], found["gates"]) == (wx.ctypes.data, b.ctypes.data, 0)
    with pytest.raises(LaunchError, match=r"b is missing: it must be a float16 array \[4, 2, 16\]"):
        kernel(r, None, states, None, d_states, wx=wx)
    with pytest.raises(LaunchError, match=r"gates must be .*\[0, 4, 5, 2, 16\]"):
        kernel(r, None, states, states, d_states, wx=wx, b=b)


def test_a_kernel_of_other_arguments_gets_those(launches: list[tuple[Any, ...]]) -> None:
    names = ("seq", "states", "r", "gates", "d_states", "d_wx", "d_r_partial", "d_b_partial", "d_initial")
    kernel = _kernel("lstm", "gates", "backward", names)
    arrays = dict(zip(("r", "states", "gates", "d_states"), _inputs(kernel), strict=True))
    result = kernel(arrays["r"], None, arrays["states"], arrays["gates"], arrays["d_states"])
    pointers = {name: array.ctypes.data for name, array in (arrays | result._asdict()).items() if array is not None}
    absent = {"seq": 5, "d_r_partial": 0, "d_b_partial": 0}
    assert list(launches[0][2:]) == [{**absent, **pointers}[name] for name in names]


def test_what_sequences_have_of_their_own_is_checked_and_handed_over(launches: list[tuple[Any, ...]]) -> None:
    shape = Shape(4, 5, 2, 16, "float16", resets=True, lengths=True)
    names = tuple(parameter.name for parameter in forward_parameters(shape))
    program = Program("forward", _call("tilesmith_forward", names))
    kernel = runtime.ForwardKernel(program, [b""], load_cell("lstm"), shape)
    arrays = {name: np.zeros(size, np.int32) for name, size in (("lengths", 4), ("order", 4))}
    arrays["resets"] = np.zeros((4, 5), np.uint8)
    inputs = [array for array in _inputs(kernel) if array.ndim > 2]
    kernel(*inputs, **arrays)
    found = dict(zip(names, launches[0][2:], strict=True))
    assert all(found[name] == array.ctypes.data for name, array in arrays.items())
    for name, array, words in (
        ("resets", np.zeros((4, 5), np.float16), r"resets must be a C-contiguous uint8 array \[4, 5\]"),
        ("lengths", np.zeros(3, np.int32), r"lengths must be a C-contiguous int32 array \[4\]"),
        ("order", None, r"order is missing: it must be a int32 array \[4\]"),
    ):
        with pytest.raises(LaunchError, match=words):
            kernel(*inputs, **(arrays | {name: array}))
    plain = _kernel()
    with pytest.raises(LaunchError, match="this kernel takes no resets: its shape, B=4 T=5 2x16 float16, does not"):
        plain(*_inputs(plain), resets=arrays["resets"])


def test_a_kernel_that_multiplies_its_input_takes_x_and_its_weights(launches: list[tuple[Any, ...]]) -> None:
    shape = Shape(4, 5, 2, 16, "float16", inputs=3)
    names = tuple(parameter.name for parameter in forward_parameters(shape))
    kernel = runtime.ForwardKernel(
        Program("forward", _call("tilesmith_forward", names)), [b""], load_cell("lstm"), shape
    )
    sizes = {array.name: array.shape for array in kernel.arguments(shape).inputs}
    x, w, bias, r, b, initial = (np.zeros(sizes[name], np.float16) for name in names[:6])
    kernel(x, r, b, initial, w=w, input_bias=bias)
    kernel(x, r, b, w=w)
    assert list(launches[0][2:8]) == [array.ctypes.data for array in (x, w, bias, r, b, initial)]
    assert list(launches[1][2:8]) == [x.ctypes.data, w.ctypes.data, 0, r.ctypes.data, b.ctypes.data, 0]
    with pytest.raises(LaunchError, match=r"w is missing: it must be a float16 array \[4, 2, 16, 3\]"):
        kernel(x, r, b)
    with pytest.raises(LaunchError, match=r"x must be \[B, T, 3\] with B and T of at least 1, not"):
        kernel(np.zeros((4, 5, 4, 2, 16), np.float16), r, b, w=w)
    plain = _kernel()
    with pytest.raises(LaunchError, match="this kernel takes no w: its shape, B=4 T=5 2x16 float16, does not ask"):
        plain(*_inputs(plain), w=w)


def test_a_kernel_says_what_it_takes() -> None:
    for kind, takes, gives in (
        (ForwardKernel, ["wx", "r", "b", "initial"], "(states, last, gates)"),
        (
            BackwardKernel,
            ["r", "initial", "states", "gates", "d_states", "d_last", "wx", "b"],
            "(d_wx, d_r, d_b, d_initial)",
        ),
    ):
        own = [*(["w", "input_bias"] if kind is ForwardKernel else []), "resets", "lengths", "order"]
        assert list(inspect.signature(kind.__call__).parameters) == ["self", *takes, *own, "out", "stream"]
        text = " ".join((kind.__call__.__doc__ or "").split())
        assert gives in text
        assert all(f"{name} [" in text for name in takes)


@pytest.mark.emulated
def test_load_makes_the_kernel_that_the_file_says(
    launches: list[tuple[Any, ...]], tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "elman_backward.yaml"
    shape = Shape(2, 4, 1, 16, "float16", "gates")
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: "this test wants none")
    result = tune(load_cell("elman"), shape, "h200", direction="backward", top=1, seeds=1, store=None)
    save(result, path, "elman")
    forward, backward = load(tuned), load(path)
    assert isinstance(forward, ForwardKernel)
    assert isinstance(backward, BackwardKernel)
    assert backward.config is not None
    assert (backward.config.direction, backward.shape) == ("backward", shape)
    r, states, gates, d_states = _inputs(backward, 3, 7)
    made = backward(r, None, states, gates, d_states)
    assert made.d_wx.shape == (3, 7, 1, 1, 16)
    assert len(launches[0]) == 2 + len(BACKWARD_NAMES)


def test_a_further_call_works_nothing_out_again(
    launches: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call costs the host time: none but the first prepares, and the others do no more than they must."""
    kernel = _kernel("elman")
    arrays = _inputs(kernel)
    kernel(*arrays)
    monkeypatch.setattr(kernel, "_prepare", None)
    monkeypatch.setattr(kernel, "arguments", None)
    entered: list[str] = []

    def note(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(Path(runtime.__file__).parent)):
            entered.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        kernel(*arrays)
    finally:
        sys.setprofile(None)
    assert len(entered) <= 6, entered
    assert len(launches) == 2


def test_prepared_calls_do_not_pile_up(launches: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "REMEMBERED_CALLS", 3)
    kernel = _kernel("elman")
    for seq in range(1, 9):
        kernel(*_inputs(kernel, 1, seq))
    assert len(kernel._calls) <= 3
    assert len(launches) == 8


def test_the_public_face_is_lazy_and_complete() -> None:
    import kernelgen

    assert kernelgen.load is runtime.load
    assert kernelgen.Shape is Shape
    for name in kernelgen.__all__:
        assert getattr(kernelgen, name) is not None
    with pytest.raises(AttributeError, match="lode"):
        _ = kernelgen.lode


def test_nothing_of_this_imports_an_array_library() -> None:
    code = f"import sys, {arrays.__name__}, kernelgen.device.runtime; print({{'torch', 'cupy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
