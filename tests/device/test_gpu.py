"""On a GPU: the worker's faults, tuning, and a loaded kernel on PyTorch's and CuPy's arrays. Skipped without one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.commands.machine import examine
from kernelgen.device import gpu, runtime
from kernelgen.device.launcher import DeviceKernel
from kernelgen.device.worker import JobFailed
from kernelgen.errors import LaunchError
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import tolerance
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.task import Direction
from kernelgen.records.config_reading import read_cubins, read_program
from kernelgen.records.store import Store
from kernelgen.tuning.tune import TuneResult, resolve_gpu, save, tune
from kernelgen.verify.cases import ValidationCase, make_case
from kernelgen.verify.gpu_worker import GpuJob, GpuWorker
from kernelgen.verify.validate import validate_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(gpu.why_no_gpu() is not None, reason="needs a GPU")]

FORWARD_ENTRY = "tilesmith_forward"
ONE_WARP = LaunchRule(("1", "1", "1"), 32, 0)
FULL = Shape(16, 1024, 12, 64)
SMALL = Shape(3, 7, 2, 32, save="gates")


@pytest.fixture(scope="module")
def profile() -> Profile:
    """The profile of this machine's GPU."""
    return resolve_gpu("auto")[0]


@pytest.fixture(scope="module")
def tuned_full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TuneResult]:
    """An LSTM at full size, tuned for this GPU with a few candidates."""
    path = tmp_path_factory.mktemp("full") / "lstm.yaml"
    result = tune(load_cell("lstm"), FULL, top=4, budget=60, store=None)
    save(result, path, "lstm")
    return path, result


@pytest.fixture(scope="module")
def tuned_backward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TuneResult]:
    """Its backward kernel, for gradients of both states."""
    path = tmp_path_factory.mktemp("full") / "lstm_backward.yaml"
    shape = replace(FULL, save="gates")
    result = tune(load_cell("lstm"), shape, direction="backward", top=4, budget=60, store=None)
    save(result, path, "lstm")
    return path, result


def test_the_doctor_finds_the_driver_and_every_gpu(profile: Profile) -> None:
    found = {check.name: check for check in examine()}
    assert found["driver"].status == "ok"
    assert [name for name in found if name.startswith("GPU")] == [f"GPU {i}" for i in range(gpu.device_count())]
    assert found["GPU 0"].status == "ok"
    assert found["GPU 0"].found.endswith(f"profile {profile.name}")


def test_memory_goes_there_and_back() -> None:
    with gpu.current(0):
        buffer = gpu.DeviceBuffer(4000)
        sent, back = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
        buffer.upload(sent)
        buffer.download(back)
        assert np.array_equal(sent, back)
        buffer.fill(0xFF)
        buffer.download(back)
        assert np.isnan(back).all()
        with pytest.raises(ValueError, match="4,000 bytes"):
            buffer.upload(sent[:10])
        buffer.close()
        buffer.close()


def test_tuning_measures_and_proves_at_full_size(tuned_full: tuple[Path, TuneResult]) -> None:
    _, result = tuned_full
    trial = result.best.trial
    assert trial.status == "measured"
    assert trial.measurement is not None
    assert trial.validation is not None
    assert trial.measurement.p10_ms <= trial.measurement.median_ms <= trial.measurement.p90_ms
    assert 0.05 < trial.measurement.median_ms < 20
    assert (trial.validation.where, trial.validation.seq) == ("gpu", FULL.seq)
    assert trial.validation.errors["h"] <= 1e-3
    assert result.first_valid < 30


def test_backward_kernels_are_measured_and_proved_at_full_size(tuned_backward: tuple[Path, TuneResult]) -> None:
    _, result = tuned_backward
    trial = result.best.trial
    assert result.direction == "backward"
    assert trial.status == "measured"
    assert trial.measurement is not None
    assert trial.validation is not None
    assert 0.05 < trial.measurement.median_ms < 20
    assert (trial.validation.where, trial.validation.seq) == ("gpu", FULL.seq)
    assert set(trial.validation.errors) == {"d_wx", "d_r", "d_b", "d_initial"}
    assert trial.validation.worst <= trial.validation.tolerance == tolerance("bfloat16", FULL.seq, "backward")


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("save_what", ["hidden", "states", "gates"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman", "elman_relu", "slstm"])
def test_every_cell_tunes(cell: str, save_what: str, direction: Direction, tmp_path: Path) -> None:
    with Store(tmp_path / "trials.sqlite") as store:
        result = tune(load_cell(cell), replace(SMALL, save=save_what), direction=direction, top=2, store=store)
    assert result.best.trial.status == "measured"


def _job(body: str, profile: Profile) -> GpuJob:
    """A kernel with another body than a forward one's."""
    text = f'extern "C" __global__ void {FORWARD_ENTRY}(const void* wx, unsigned* states, int seq) {{ {body} }}\n'
    source = Source(text, FORWARD_ENTRY, profile.arch, ("wx", "states", "seq"))
    program = Program("forward", KernelCall(replace(source, writes=("states",)), ONE_WARP))
    return GpuJob(program, (compile_source(source, cache=None).cubin,))


def test_faults_and_hangs_are_survived(profile: Profile) -> None:
    case = make_case(load_cell("elman"), Shape(1, 2, 1, 16), 0)
    faults = {
        "states[1l << 40] = 1;": (60, "illegal memory access|fault"),
        "while (*(volatile const unsigned*)wx != 12345u + (unsigned)clock64() * 2u) { }": (6, "longer than its limit"),
        'asm volatile("trap;");': (60, "launch failure|illegal|fail"),
        "": (60, "were never written"),
    }
    with GpuWorker() as worker:
        worker.use([case])
        for body, (seconds, message) in faults.items():
            with pytest.raises(JobFailed, match=message):
                worker.run(_job(body, profile), seconds)


def test_a_binary_for_another_gpu_is_refused_in_words(profile: Profile) -> None:
    other = "sm_80" if profile.compute_capability[0] != 8 else "sm_90a"
    source = Source(f'extern "C" __global__ void {FORWARD_ENTRY}() {{}}\n', FORWARD_ENTRY, other)
    cubin = compile_source(source, cache=None).cubin
    with pytest.raises(LaunchError, match=f"{other}|cannot load"):
        DeviceKernel(cubin, FORWARD_ENTRY, other, ONE_WARP).prepare(0)


def _module(name: str) -> Any:
    return pytest.importorskip(name)


def _torch(array: np.ndarray[Any, Any] | None) -> Any:
    if array is None:
        return None
    torch = _module("torch")
    return torch.from_numpy(array.view(np.uint16)).cuda().view(torch.bfloat16)


def _numpy(tensor: Any, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    torch = _module("torch")
    back: np.ndarray[Any, Any] = tensor.view(torch.uint16).cpu().numpy()
    return back.view(like.dtype)


def _outputs(result: runtime.Forward | runtime.Backward, case: ValidationCase) -> dict[str, Any]:
    """What a kernel wrote, without what it does not write."""
    like = case.inputs["r"]
    assert like is not None
    return {name: _numpy(tensor, like) for name, tensor in result._asdict().items() if tensor is not None}


def test_a_loaded_kernel_on_pytorch(tuned_full: tuple[Path, TuneResult]) -> None:
    torch = _module("torch")
    kernel = runtime.load(tuned_full[0])
    for batch, seq, initial in ((16, 1024, True), (5, 33, False), (16, 1, True)):
        case = make_case(load_cell("lstm"), FULL, 7, batch=batch, seq=seq, optional=initial)
        inputs = {name: _torch(array) for name, array in case.inputs.items()}
        assert case.compare(_outputs(kernel(**inputs), case))["h"] <= 1e-2
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            result = kernel(**inputs)
        stream.synchronize()
        case.compare(_outputs(result, case))
        out = (torch.full_like(result.states, float("nan")), torch.full_like(result.last, float("nan")), None)
        torch.cuda.synchronize()
        assert kernel(**inputs, out=out, stream=stream).states is out[0]
        stream.synchronize()
        case.compare(_outputs(runtime.Forward(*out), case))
    with pytest.raises(LaunchError, match="on the CPU"):
        kernel(inputs["wx"].cpu(), inputs["r"], inputs["b"])
    with pytest.raises(LaunchError, match="float32"):
        kernel(inputs["wx"], inputs["r"].float(), inputs["b"])


def test_a_loaded_backward_kernel_on_pytorch(tuned_backward: tuple[Path, TuneResult]) -> None:
    torch = _module("torch")
    kernel = runtime.load(tuned_backward[0])
    assert isinstance(kernel, runtime.BackwardKernel)
    for batch, seq, optional in ((16, 1024, True), (5, 33, False), (16, 1, True)):
        case = make_case(
            load_cell("lstm"), kernel.shape, 7, direction="backward", batch=batch, seq=seq, optional=optional
        )
        inputs = {name: _torch(case.inputs[name]) for name in ("r", "initial", "states", "gates", "d_states", "d_last")}
        result = kernel(**inputs)
        assert case.compare(_outputs(result, case)).keys() >= {"d_wx", "d_r", "d_b"}
        stream = torch.cuda.Stream()
        out = tuple(torch.full_like(array, float("nan")) for array in result)
        torch.cuda.synchronize()
        assert kernel(**inputs, out=out, stream=stream).d_wx is out[0]
        stream.synchronize()
        case.compare(_outputs(runtime.Backward(*out), case))
    with pytest.raises(LaunchError, match="float32"):
        kernel(**{**inputs, "gates": inputs["gates"].float()})


def test_the_pair_of_kernels_gives_a_gradient(tmp_path: Path, tuned_backward: tuple[Path, TuneResult]) -> None:
    """What the forward kernel saved is what the backward kernel reads."""
    shape = replace(FULL, save="gates")
    forward_path = tmp_path / "lstm.yaml"
    save(tune(load_cell("lstm"), shape, top=1, store=None), forward_path, "lstm")
    forward, backward = runtime.load(forward_path), runtime.load(tuned_backward[0])
    case = make_case(load_cell("lstm"), shape, 11)
    wanted = make_case(load_cell("lstm"), shape, 11, direction="backward")  # drawn from the same seed
    inputs = {name: _torch(case.inputs[name]) for name in ("wx", "r", "b", "initial")}
    states, _, gates = forward(**inputs)
    given = [_torch(wanted.inputs[name]) for name in ("d_states", "d_last")]
    made = _outputs(backward(inputs["r"], inputs["initial"], states, gates, *given), wanted)
    for name, expected in wanted.expected.items():
        error = np.linalg.norm(made[name].astype(np.float32) - expected) / np.linalg.norm(expected)
        assert error <= 2 * wanted.tolerance, name  # the forward kernel errs too


def test_a_loaded_kernel_on_cupy(tuned_full: tuple[Path, TuneResult]) -> None:
    cupy = _module("cupy")
    kernel = runtime.load(tuned_full[0])
    case = make_case(load_cell("lstm"), FULL, 8, batch=3, seq=40)
    like = case.inputs["wx"]
    assert like is not None
    inputs = {name: cupy.asarray(array.view(np.uint16)) for name, array in case.inputs.items() if array is not None}
    result = kernel(**inputs)
    assert isinstance(result.states, cupy.ndarray)
    case.compare({"states": result.states.get().view(like.dtype), "last": result.last.get().view(like.dtype)})


def test_a_loaded_kernel_on_jax(tuned_full: tuple[Path, TuneResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax, torch = _module("jax"), _module("torch")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    kernel = runtime.load(tuned_full[0])
    case = make_case(load_cell("lstm"), FULL, 8, batch=3, seq=40, optional=False)
    inputs = [jax.numpy.asarray(case.inputs[name]) for name in ("wx", "r", "b")]
    with pytest.raises(LaunchError, match="pass out="):
        kernel(*inputs)
    shapes = [case.expected[name].shape for name in ("states", "last")]
    out = [torch.empty(shape, dtype=torch.bfloat16, device="cuda") for shape in shapes]
    kernel(*inputs, out=(*out, None))
    torch.cuda.synchronize()
    case.compare(_outputs(runtime.Forward(*out, None), case))


def test_what_a_call_costs_the_host(tuned_full: tuple[Path, TuneResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed, and that nothing is prepared again; test_runtime.py counts what is done."""
    torch = _module("torch")
    kernel = runtime.load(tuned_full[0])
    case = make_case(load_cell("lstm"), FULL, 9, batch=1, seq=1)
    inputs = [_torch(case.inputs[name]) for name in ("wx", "r", "b")]
    kernel(*inputs)
    monkeypatch.setattr(kernel, "_prepare", None)
    best = float("inf")
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(50):
            kernel(*inputs)
        best = min(best, (time.perf_counter() - start) / 50)
    torch.cuda.synchronize()
    print(f"a call costs {best * 1e6:.1f} us of the host's time")


@pytest.mark.parametrize("tuned", ["tuned_full", "tuned_backward"])
def test_validating_a_config_on_the_gpu(tuned: str, request: pytest.FixtureRequest) -> None:
    path, result = request.getfixturevalue(tuned)
    program = read_program(path)
    assert program.direction == result.direction
    found = validate_gpu(result.cell, result.shape, program, read_cubins(path), seeds=(3, 4))
    assert found.seeds == 2
    assert found.worst <= found.tolerance
