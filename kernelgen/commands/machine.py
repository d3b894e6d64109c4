"""What this machine has of all that tilesmith uses, and what is missing for what.

What may hang or crash (a driver, the compiler's library) is asked in a process of its own; nothing heavy is imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from kernelgen import paths
from kernelgen.commands.console import counted
from kernelgen.device.worker import JobFailed, Worker
from kernelgen.errors import EmulationError, LaunchError, StoreError, TilesmithError

REQUIRED = {
    "numpy": "numpy",
    "ml_dtypes": "ml_dtypes",
    "sympy": "sympy",
    "ortools": "ortools",
    "click": "click",
    "rich": "rich",
    "pyyaml": "yaml",
    "pydantic": "pydantic",
    "cuda-core": "cuda.core",
}
"""The packages that tilesmith needs, and a module of each by which it is known to be there. NVRTC is asked itself."""

PROBE_SECONDS = 20.0
"""How long the driver, or the compiler's library, may take to answer."""

HOST_COMPILERS = {"gcc": 11, "clang": 16}
"""The host compilers and the major version from which they compile the emulator."""

Status = Literal["ok", "absent", "warning", "broken"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing.

    status: ok; absent, something optional that is not there; warning, there but not as it should be; broken, something
    required that does not work. found: what there is, in words. advice: what that means and what to do, if not ok.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """Look at everything. Raises nothing: a check that fails is a Check that says so."""
    checks: list[Check] = []
    with Worker("kernelgen.commands.machine:probe") as worker:
        with contextlib.suppress(LaunchError):  # the checks that need it say so
            worker.start()
        _safely(checks, "Python", _python)
        _safely(checks, "tilesmith", _tilesmith)
        _safely(checks, "packages", _packages)
        _safely(checks, "constrint", _constrint)
        _safely(checks, "g++", _host_compiler)
        _safely(checks, "cache", _cache)
        _safely(checks, "store", _store)
        _safely(checks, "PyTorch", _frameworks)
        _safely(checks, "NVRTC", lambda: _nvrtc(worker))
        _safely(checks, "GPU", lambda: _gpus(worker))
    return checks


def healthy(checks: Iterable[Check]) -> bool:
    """Whether everything that is required works."""
    return all(check.status != "broken" for check in checks)


def engine_in_words() -> str:
    """Which engine of constrint's runs."""
    from constrint import has_core

    return "the C++ core" if has_core() else "the Python engine, without the C++ core"


def probe(what: str) -> Any:
    """Ask what may hang or crash: "nvrtc" for its version, "gpus" for the driver and every GPU, as plain values.

    Raises CompileError or LaunchError, in words.
    """
    if what == "nvrtc":
        from kernelgen.build.compile import compiler_version

        return compiler_version()
    from kernelgen.device import gpu

    if reason := gpu.why_no_gpu():
        raise LaunchError(reason)
    driver = gpu.require_driver()
    version = int(gpu.checked(driver.cuDriverGetVersion(), "asking for the driver's version"))
    found = []
    for index in range(gpu.device_count()):
        device = gpu.device(index)
        text = f"{device}, {device.memory_bytes / 2**30:.0f} GiB"
        try:
            found.append((True, f"{text}, profile {device.profile().name}"))
        except Exception as error:
            found.append((False, f"{text}: {error}"))
    return (version // 1000, version % 1000 // 10), found


def _safely(checks: list[Check], name: str, look: Callable[[], list[Check]]) -> None:
    """Add what a look finds; a look that fails is a check that is broken."""
    try:
        checks += look()
    except Exception as error:
        words = str(error) if isinstance(error, TilesmithError) else f"{type(error).__name__}: {error}"
        checks.append(Check(name, "broken", f"cannot be looked at: {words}"))


def _python() -> list[Check]:
    found = f"{platform.python_version()}, {sys.executable or 'embedded'}, {platform.system()} {platform.machine()}"
    if sys.platform.startswith("linux"):
        return [Check("Python", "ok", found)]
    return [Check("Python", "warning", found, "only Linux is tested: the emulator and the tuner need it")]


def _tilesmith() -> list[Check]:
    package = Path(__file__).resolve().parents[1]
    version = _version("tilesmith")
    found = f"{version or 'a checkout that is not installed'}, {package}"
    for folder in (paths.cuda_headers, paths.profiles):
        folder()  # raises if it is not there
    return [Check("tilesmith", "ok", found)]


def _packages() -> list[Check]:
    missing = [name for name, module in REQUIRED.items() if not _importable(module)]
    found = ", ".join(f"{name} {_version(name) or '?'}" for name in REQUIRED if name not in missing)
    checks = [Check("packages", "ok", found)] if found else []
    if missing:
        names = ", ".join(missing)
        checks.append(Check("packages", "broken", f"not installed: {names}", f"pip install {' '.join(missing)}"))
    return checks


def _constrint() -> list[Check]:
    from constrint import has_core

    found = engine_in_words()
    if has_core():
        return [Check("constrint", "ok", found)]
    advice = "the answers are the same, but large problems take longer. "
    built = sorted(Path(sys.modules["constrint"].__path__[0]).glob("_core_native.*"))
    if built:
        names = ", ".join(path.name for path in built)
        advice += f"{names} is there, but this Python cannot load it. Install tilesmith again for this Python"
    else:
        advice += (
            "Install a C++ compiler (apt install g++), then tilesmith once more, with pip's --force-reinstall "
            "--no-deps --no-cache-dir; in a checkout, python setup.py build_ext --inplace"
        )
    return [Check("constrint", "warning", found, advice)]


def _host_compiler() -> list[Check]:
    from kernelgen.verify.host_compiler import compiler_version, find_compiler

    lost = "the emulator cannot run, so kernels cannot be validated without a GPU"
    try:
        words = find_compiler()
        version = compiler_version(words)
    except EmulationError as error:
        return [Check("g++", "absent", str(error), lost)]
    kind = "clang" if "clang" in version else "gcc"
    number = re.search(rf"{kind} version (\d+)[\d.]*", version)
    found = f"{number[0] if number else 'of an unknown version'}, {shlex.join(words)}"
    if number and int(number[1]) < HOST_COMPILERS[kind]:
        return [Check("g++", "warning", found, f"{kind} {HOST_COMPILERS[kind]} or newer is needed: {lost}")]
    return [Check("g++", "ok", found)]


def _cache() -> list[Check]:
    root = paths.cache_root()
    if not root.exists():
        found = f"{root}, not there yet"
    else:
        sizes = [f"{name} {_amount(root / name)}" for name in ("cubin", "emulator")]
        found = f"{root}: {', '.join(sizes)}"
    obstacle = _unwritable(root)
    if obstacle:
        advice = "kernels are compiled anew each time, and no trial is kept. Set TILESMITH_CACHE to another folder"
        return [Check("cache", "warning", f"{found}; it cannot be written ({obstacle})", advice)]
    return [Check("cache", "ok", f"{found}; writable")]


def _store() -> list[Check]:
    from kernelgen.records.store import Store

    path = paths.cache_root() / "trials.sqlite"
    try:
        with Store(path, write=False):
            pass
    except StoreError as error:
        return [Check("store", "warning", f"{path}", str(error))]
    if not path.exists():
        return [Check("store", "ok", f"{path}, not there yet")]
    found = f"{path}, {_size(path.stat().st_size)}"
    if not os.access(path, os.W_OK):
        return [Check("store", "warning", f"{found}; it cannot be written", "what tuning finds out is not kept")]
    return [Check("store", "ok", f"{found}; writable")]


def _frameworks() -> list[Check]:
    """The optional packages, by what is installed: to import them takes seconds."""
    checks = []
    for name, distributions, advice in (
        ("PyTorch", ("torch",), "kernelgen.torch needs it: pip install 'tilesmith[torch]'"),
        (
            "CuPy",
            ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
            "kernelgen.load takes PyTorch tensors and whatever speaks DLPack as well: pip install 'tilesmith[gpu]'",
        ),
        (
            "Triton",
            ("triton",),
            "tune --language triton and, on a GPU, torch.compile need it: pip install 'tilesmith[triton]'",
        ),
        ("Vega", ("vl-convert-python",), "report needs it: pip install 'tilesmith[report]'"),
        ("Ray", ("ray",), "tune --workers ray needs it: pip install 'tilesmith[ray]'"),
        ("NVML", ("nvidia-ml-py",), "tune --objective energy needs it: pip install 'tilesmith[energy]'"),
    ):
        versions = [(each, version) for each in distributions if (version := _version(each))]
        if versions:
            checks.append(Check(name, "ok", ", ".join(f"{version} ({each})" for each, version in versions)))
        else:
            checks.append(Check(name, "absent", "not installed", advice))
    return checks


def _nvrtc(worker: Worker) -> list[Check]:
    try:
        return [Check("NVRTC", "ok", f"{worker.run('nvrtc', PROBE_SECONDS)}")]
    except JobFailed as error:
        return [Check("NVRTC", "broken", " ".join(str(error).split()), "no kernel can be compiled")]


def _gpus(worker: Worker) -> list[Check]:
    lost = "kernels cannot be measured: tune goes by the model and validates in the emulator"
    try:
        (major, minor), devices = worker.run("gpus", PROBE_SECONDS)
    except JobFailed as error:
        if error.reason == "error":
            return [Check("GPU", "absent", str(error), lost)]
        return [Check("GPU", "warning", f"asking the NVIDIA driver {error}", lost)]
    from kernelgen.device.gpu import kernel_driver

    found = ", ".join([*filter(None, [kernel_driver()]), f"CUDA {major}.{minor}"])
    if major < 13:
        checks = [Check("driver", "warning", found, "cubins are made for CUDA 13: install driver 580 or newer")]
    else:
        checks = [Check("driver", "ok", found)]
    for number, (known, text) in enumerate(devices):
        checks.append(Check(f"GPU {number}", "ok" if known else "warning", text, "" if known else lost))
    return checks


def _version(distribution: str) -> str:
    """What is installed of a distribution; empty where it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _importable(module: str) -> bool:
    """Whether a module is there, without importing it (its parents are)."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _unwritable(folder: Path) -> str:
    """Why nothing can be written in a folder, or where it would be made; empty where it can. Leaves nothing there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder}: {error.strerror or error}"


def _amount(folder: Path) -> str:
    """Size and number of the files below a folder; those that vanish meanwhile do not count."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(place) / name).stat().st_size)
            except OSError:
                continue
    return f"{_size(sum(sizes))} in {counted(len(sizes), 'file')}"


def _size(count: int) -> str:
    """Bytes for people."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
