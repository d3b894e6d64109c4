"""What all tests share: a cache of their own, and one small tuned kernel."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from pathlib import Path

import pytest

KEPT_BYTES = 1 << 30
"""Of what compilers made, for the next runs."""


def kept_by_pytest(config: pytest.Config) -> Path | None:
    """Where pytest keeps what compilers made from run to run; None where it keeps nothing."""
    try:
        return config.cache.mkdir("compiled") if config.cache is not None else None
    except (AttributeError, OSError):  # without its plugin, or in a checkout that nobody may write to
        return None


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A cache for the whole run, so that nothing is compiled twice; what compilers made, all workers share, and the
    next run: its name is all that it was made from (build/cache.py). `pytest --cache-clear` forgets it."""
    cache, base = tmp_path_factory.mktemp("cache"), tmp_path_factory.getbasetemp()
    kept = kept_by_pytest(pytestconfig)
    for name in ("cubin", "emulator"):
        shared = (kept or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled") / name
        shared.mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(shared)
    return cache


@pytest.fixture
def fresh_cache(session_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In use by the test alone, without a store; but what g++ made is there, for it takes longest."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "emulator").symlink_to(session_cache / "emulator")
    monkeypatch.setenv("TILESMITH_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def _own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test, and the processes it starts, away from the user's cache."""
    monkeypatch.setenv("TILESMITH_CACHE", str(session_cache))


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules on a CPU run what they run elsewhere, not torch.nn's own operators."""
    native = pytest.importorskip("kernelgen.torch.native")
    monkeypatch.setattr(native, "alone", lambda *_: False)


@pytest.fixture(autouse=True)
def _runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes find runners.py."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@pytest.fixture(autouse=True)
def _bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of a test keep what they compile of Python, for hundreds are started: 0.4 s of each."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


@pytest.fixture(scope="session")
def tuned(session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file of a small Elman network tuned for an H200 in the emulator, with its source and binary."""
    from kernelgen.cells import load_cell
    from kernelgen.program.shape import Shape
    from kernelgen.tuning.tune import save, tune

    path = tmp_path_factory.mktemp("tuned") / "elman.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESMITH_CACHE", str(session_cache))
        patch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
        result = tune(load_cell("elman"), Shape(2, 4, 1, 16), "h200", top=1, seeds=1, store=None)
        save(result, path, "elman")
    return path


def keep_freed_memory() -> None:
    """Let the C library keep arrays of up to 32 MiB that are freed for the next ones: the emulator and NumPy take and
    leave such by the thousand, and whenever the system gives one it has to clear its pages: a seventh of their time."""
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # glibc has it
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 1 << 30)


def pytest_sessionstart() -> None:
    """Let nothing wait for the disk: no test outlives the machine, and thousands of binaries are written."""
    os.fsync = lambda file: None  # type: ignore[assignment]


def pytest_configure() -> None:
    """Let Ctrl-C through: a run in the background of a shell starts with it ignored, and so would its processes.

    PyTorch gets one thread: each worker has a core, and threads that wait for tiny tensors spin. Memory that is free
    again stays the process's.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # where a worker of pytest-xdist begins, that is the terminal of who began it
    keep_freed_memory()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the garbage collector leave alone what was imported, and look for circles less often: 3 to 8% of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Of what is kept, remove the oldest beyond KEPT_BYTES."""
    if "PYTEST_XDIST_WORKER" in os.environ or (kept := kept_by_pytest(config)) is None:
        return
    files = [(path, path.stat()) for path in kept.rglob("*") if path.is_file()]
    room = KEPT_BYTES
    for path, status in sorted(files, key=lambda each: -each[1].st_mtime):
        room -= status.st_size
        if room < 0:
            path.unlink(missing_ok=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """One flag renews the golden files."""
    parser.addoption(
        "--renew-golden", action="store_true", help="rewrite tests/schedules/golden from what is generated now"
    )


@pytest.fixture
def renew_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the golden files are to be rewritten."""
    return bool(request.config.getoption("--renew-golden"))
