"""The runtime without a GPU: what a call checks, how arrays of any library are read, finding the driver."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelgen import arrays, gpu, launcher, runtime
from kernelgen.arguments import arguments_of
from kernelgen.arrays import Description, ForeignLibrary, library_of
from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, tanh
from kernelgen.errors import LaunchError
from kernelgen.measure import summarise
from kernelgen.runtime import Kernel, load, raw_stream
from kernelgen.schedules.base import Direction, Launch
from kernelgen.shape import Shape

pytestmark = pytest.mark.unit


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


# ---- arrays ----


def test_a_cpu_array_and_a_list_are_refused_in_words() -> None:
    with pytest.raises(LaunchError, match=r"arrays on the GPU.*not list"):
        library_of([1, 2], "float16")
    library = library_of(np.zeros((2, 3), np.float16), "float16")
    assert isinstance(library, ForeignLibrary)
    assert str(library.describe(np.zeros((2, 3), np.float16))) == "float16 [2, 3] on the CPU"
    assert not library.fits(np.zeros((2, 3), np.float16), (2, 3), 0)
    with pytest.raises(LaunchError, match="pass out="):
        library.empty((2, 3), 0)


def test_strides_decide_what_is_contiguous() -> None:
    library = library_of(np.zeros(1, np.float16), "float16")
    array = np.zeros((4, 1, 6), np.float16)
    assert library.describe(array).contiguous
    assert library.describe(array[2:3]).contiguous
    assert not library.describe(array[:, :, ::2]).contiguous
    assert not library.describe(array.transpose(2, 1, 0)).contiguous


def test_torch_and_cupy_are_used_only_where_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        shape, is_cuda = (2, 3), True
        dtype = "torch.bfloat16"
        device = types.SimpleNamespace(index=1)

        def is_contiguous(self) -> bool:
            return True

        def get_device(self) -> int:
            return 1

        def data_ptr(self) -> int:
            return 4096

    current = types.SimpleNamespace(current_stream=lambda device: types.SimpleNamespace(cuda_stream=10 + device))
    torch = types.SimpleNamespace(Tensor=Tensor, bfloat16="torch.bfloat16", cuda=current)
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    library = library_of(Tensor(), "bfloat16")
    assert library.name == "PyTorch"
    assert library.describe(Tensor()) == Description((2, 3), "bfloat16", 1, True)
    assert library.fits(Tensor(), (2, 3), 1)
    assert not library.fits(Tensor(), (2, 3), 0)
    assert not library.fits(np.zeros((2, 3)), (2, 3), 1)
    assert (library.pointer(Tensor()), library.stream(1)) == (4096, 11)


def test_a_stream_may_come_from_any_library() -> None:
    assert raw_stream(5) == 5
    assert raw_stream(types.SimpleNamespace(cuda_stream=6)) == 6
    assert raw_stream(types.SimpleNamespace(ptr=7)) == 7
    assert raw_stream(types.SimpleNamespace(__cuda_stream__=lambda: (0, 8))) == 8
    with pytest.raises(LaunchError, match="not str"):
        raw_stream("stream")


# ---- calls ----


class _NumpyLibrary(ForeignLibrary):
    """NumPy arrays that pass for arrays on GPU 0."""

    name = "NumPy"

    def describe(self, array: Any) -> Description:
        found = super().describe(array)
        return Description(found.shape, found.dtype, 0, found.contiguous)

    def fits(self, array: Any, shape: tuple[int, ...], device: int) -> bool:
        return bool(array.shape == shape and array.dtype == np.float16 and array.flags.c_contiguous and device == 0)

    def pointer(self, array: Any) -> int:
        return int(array.ctypes.data)

    def empty(self, shape: tuple[int, ...], device: int) -> Any:
        return np.empty(shape, np.float16)


class _Driver:
    """A driver with one context."""

    def cuCtxGetCurrent(self) -> tuple[int, int]:
        return 0, 77


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace the GPU by a list of what was launched."""
    seen: list[tuple[Any, ...]] = []

    class Recorder:
        entry = "tilesmith_forward"
        arch = "sm_90a"

        def __init__(self, *_: Any) -> None: ...

        def prepare(self, index: int) -> None: ...

        def start(self, *arguments: Any) -> None:
            seen.append(arguments)

    monkeypatch.setattr(runtime, "DeviceKernel", Recorder)
    monkeypatch.setattr(runtime, "stream_of", lambda handle: handle)
    monkeypatch.setattr(runtime, "library_of", lambda array, dtype: _NumpyLibrary(np.dtype(np.float16)))
    monkeypatch.setattr(gpu, "require_driver", _Driver)
    monkeypatch.setattr(gpu, "primary_context", lambda index: 77)
    return seen


def _kernel(
    cell: str | Cell = "lstm",
    save: str = "hidden",
    direction: Direction = "forward",
    order: tuple[str, ...] | None = None,
) -> Kernel:
    shape = Shape(4, 5, 2, 16, "float16", save)
    definition = load_cell(cell) if isinstance(cell, str) else cell
    return runtime.KERNELS[direction](
        b"",
        f"tilesmith_{direction}",
        "sm_90a",
        shape,
        lambda shape: arguments_of(definition, shape, direction, order),
        lambda shape: Launch((2, shape.batch, 1), 64, 0),
    )


def _inputs(kernel: Kernel, batch: int = 4, seq: int = 5) -> list[Any]:
    """The inputs that may not be null, in order."""
    arguments = kernel.arguments(replace(kernel.shape, batch=batch, seq=seq))
    return [np.zeros(argument.shape, np.float16) for argument in arguments.inputs if not argument.optional]


def test_a_call_hands_over_addresses_in_the_order_of_the_contract(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel(save="gates")
    wx, r, b = _inputs(kernel)
    initial = np.zeros((2, 4, 2, 16), np.float16)
    result = kernel(wx, r, b, initial, stream=3)
    stream, config, *arguments = launches[0]
    assert stream == 3
    assert tuple(config.grid) == (2, 4, 1)
    pointers = [array.ctypes.data for array in (wx, r, b, initial, *result)]
    assert arguments == [*pointers, 4, 5]
    assert all(isinstance(number, np.int32) for number in arguments[-2:])
    assert [array.shape for array in result] == [(2, 4, 5, 2, 16), (2, 4, 2, 16), (4, 4, 5, 2, 16)]


def test_batch_and_seq_may_change_from_call_to_call(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel("gru")
    for batch, seq in ((4, 5), (1, 9), (4, 5), (7, 1)):
        result = kernel(*_inputs(kernel, batch, seq))
        assert result.states.shape == (1, batch, seq, 2, 16)
        assert result.gates is None
        _, config, *arguments = launches[-1]
        assert arguments[-2:] == [batch, seq]
        assert arguments[3] == arguments[6] == 0
        assert tuple(config.grid) == (2, batch, 1)


def test_outputs_may_be_given(launches: list[tuple[Any, ...]]) -> None:
    kernel = _kernel()
    inputs = _inputs(kernel)
    out = (np.zeros((1, 4, 5, 2, 16), np.float16), np.zeros((2, 4, 2, 16), np.float16), None)
    result = kernel(*inputs, out=out)
    assert result.states is out[0]
    assert launches[0][6:9] == (out[0].ctypes.data, out[1].ctypes.data, 0)
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
    code = f"import sys, {arrays.__name__}, kernelgen.runtime; print({{'torch', 'cupy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
