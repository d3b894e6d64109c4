"""Finding the driver and its GPUs, and plain device memory: the few driver calls that need no kernel.

Everything goes through cuda.bindings (a dependency of cuda-core), so neither CuPy nor PyTorch is needed. Nothing
here touches the driver before a function is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelgen.errors import LaunchError

if TYPE_CHECKING:
    import numpy as np

    from kernelgen.hardware.profile import Profile

NO_GPU_ADVICE = (
    "install an NVIDIA driver, or work without a GPU: `tilesmith tune --gpu NAME` tunes for one that is not here "
    "(`tilesmith gpus` lists them), and `tilesmith validate FILE.yaml --emulate` runs a kernel in the emulator"
)


class DeviceFault(LaunchError):
    """The GPU faulted (an illegal access, a failed launch): this process's CUDA context is lost."""

    fatal = True


@dataclass(frozen=True)
class Device:
    """One GPU of this machine, as its driver describes it.

    attributes: those of the driver's device attributes that a profile needs (hardware.DEVICE_ATTRIBUTES).
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    attributes: Mapping[str, int]

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name} (sm_{major}{minor})"

    def profile(self) -> Profile:
        """The profile of this GPU: one that comes with tilesmith, or one built from the device's own attributes."""
        from kernelgen.hardware.profile import match_device

        attributes = {**self.attributes, "total_memory": self.memory_bytes}
        multiprocessors = self.attributes.get("multiprocessor_count", 0)
        return match_device(self.name, self.compute_capability, multiprocessors, attributes)


@cache
def why_no_gpu() -> str | None:
    """None where a driver and at least one GPU are present, else the reason in words."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        return f"the package cuda-bindings is missing ({error}); reinstall tilesmith"
    try:
        (status,) = driver.cuInit(0)
    except Exception:  # the bindings raise types of their own when libcuda cannot be opened
        return "there is no NVIDIA driver on this machine"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"the NVIDIA driver refused to start ({status.name})"
    status, count = driver.cuDeviceGetCount()
    if status != driver.CUresult.CUDA_SUCCESS or not count:
        return "the NVIDIA driver sees no GPU on this machine"
    return None


def require_driver() -> Any:
    """Return the module cuda.bindings.driver, initialised.

    Raises LaunchError, saying why and what to do, where there is no driver or no GPU.
    """
    reason = why_no_gpu()
    if reason:
        raise LaunchError(f"no GPU to run on: {reason}; {NO_GPU_ADVICE}")
    from cuda.bindings import driver

    return driver


def checked(result: tuple[Any, ...], what: str) -> Any:
    """Unpack a driver call's result: nothing, one value or a tuple.

    Raises DeviceFault where the context is lost, LaunchError for any other failure; ``what`` says what was done.
    """
    status, *values = result
    if status.value:
        from cuda.bindings import driver

        _, text = driver.cuGetErrorString(status)
        reason = text.decode() if isinstance(text, bytes) else status.name
        message = f"{what} failed: {reason} ({status.name})"
        raise DeviceFault(message) if status.name in _FATAL else LaunchError(message)
    return values[0] if len(values) == 1 else tuple(values)


_FATAL = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        "ILLEGAL_ADDRESS",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "ILLEGAL_INSTRUCTION",
        "MISALIGNED_ADDRESS",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "HARDWARE_STACK_ERROR",
        "ASSERT",
        "ECC_UNCORRECTABLE",
        "CONTEXT_IS_DESTROYED",
        "UNKNOWN",
    )
)


def versions() -> tuple[str, tuple[int, int]]:
    """The driver's version, such as "580.82.07" (empty where nothing says it), and the newest CUDA that it knows.

    Raises LaunchError where there is no driver.
    """
    number = int(checked(require_driver().cuDriverGetVersion(), "asking for the driver's version"))
    return kernel_driver(), (number // 1000, number % 1000 // 10)


def kernel_driver() -> str:
    """The version of the driver in the kernel, such as "580.82.07"; empty where it does not say."""
    try:
        found = re.search(r"\s(\d+\.\d[\d.]*)\s", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def device_count() -> int:
    """The number of GPUs. Raises LaunchError where there is no driver."""
    return int(checked(require_driver().cuDeviceGetCount(), "counting the GPUs"))


@cache
def device(index: int = 0) -> Device:
    """Describe GPU ``index``. Raises LaunchError where there is none."""
    from kernelgen.hardware.profile import DEVICE_ATTRIBUTES

    driver = require_driver()
    handle = checked(driver.cuDeviceGet(index), f"finding GPU {index}")
    name = checked(driver.cuDeviceGetName(128, handle), "asking for the GPU's name")
    attributes: dict[str, int] = {}
    # Only what is needed: a driver refuses attributes that are newer than it, and sanitizers report the refusal.
    for wanted in sorted(DEVICE_ATTRIBUTES):
        attribute = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{wanted.upper()}")
        attributes[wanted] = int(checked(driver.cuDeviceGetAttribute(attribute, handle), f"asking for {wanted}"))
    return Device(
        index=index,
        name=_text(name),
        compute_capability=(attributes["compute_capability_major"], attributes["compute_capability_minor"]),
        memory_bytes=int(checked(driver.cuDeviceTotalMem(handle), "asking for the GPU's memory")),
        attributes=attributes,
    )


def _text(name: bytes | str) -> str:
    """A string of the driver's: what comes before its terminator."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return text.partition("\0")[0].strip()


def runs_on(arch: str, compute_capability: tuple[int, int]) -> bool:
    """Whether a cubin for ``arch`` ("sm_90a") runs on a GPU of this compute capability.

    A suffix binds a cubin to exactly its compute capability; without one it runs on later minor versions of the
    same major (CUDA C++ Programming Guide, "Application Compatibility"). One for AMD ("gfx942") runs on none of these.
    """
    if not arch.startswith("sm_"):
        return False
    digits = arch.removeprefix("sm_")
    exact = not digits.isdigit()
    digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
    target = (int(digits[:-1]), int(digits[-1]))
    if exact:
        return compute_capability == target
    return compute_capability[0] == target[0] and compute_capability[1] >= target[1]


@cache
def primary_context(index: int) -> Any:
    """The primary context of GPU ``index``, the one that CuPy and PyTorch use; kept for the process's life."""
    driver = require_driver()
    handle = checked(driver.cuDeviceGet(index), f"finding GPU {index}")
    return checked(driver.cuDevicePrimaryCtxRetain(handle), f"opening GPU {index}")


@contextmanager
def current(index: int) -> Iterator[Any]:
    """Make GPU ``index`` current within the block, and yield the driver module."""
    driver = require_driver()
    checked(driver.cuCtxPushCurrent(primary_context(index)), f"selecting GPU {index}")
    try:
        yield driver
    finally:
        driver.cuCtxPopCurrent()


def selected(index: int) -> AbstractContextManager[Any]:
    """Make GPU ``index`` current within the block, as ``current`` does, with little to do where it is already.

    A thread that has no current GPU keeps this one, as it does from its first launch through CUDA's runtime.
    """
    driver, context, wanted = _primary(index)
    found = int(checked(driver.cuCtxGetCurrent(), "asking for the current GPU"))
    if found and found != wanted:
        return current(index)
    if not found:
        checked(driver.cuCtxSetCurrent(context), f"selecting GPU {index}")
    return _SELECTED


_SELECTED = nullcontext()


@cache
def _primary(index: int) -> tuple[Any, Any, int]:
    """The driver module, the primary context of a GPU, and its address."""
    context = primary_context(index)
    return require_driver(), context, int(context)


def fill(pointer: int, byte: int, size: int, stream: Any) -> None:
    """Queue filling ``size`` bytes of the current GPU's memory with ``byte`` on a cuda-core stream."""
    driver = require_driver()
    checked(driver.cuMemsetD8Async(pointer, byte, size, int(stream.handle)), "filling GPU memory")


class DeviceBuffer:
    """``size`` bytes of GPU memory on the current GPU, freed by close() or with the object."""

    def __init__(self, size: int) -> None:
        self._driver = driver = require_driver()
        self.size = size
        self.pointer = int(checked(driver.cuMemAlloc(max(size, 1)), f"allocating {size:,} bytes on the GPU"))

    def fill(self, byte: int) -> None:
        """Set every byte to ``byte``."""
        if self.size:
            checked(self._driver.cuMemsetD8(self.pointer, byte, self.size), "filling GPU memory")

    def upload(self, array: np.ndarray[Any, Any]) -> None:
        """Copy a C-contiguous array of exactly this size to the GPU."""
        _same_size(array, self.size)
        if self.size:
            checked(self._driver.cuMemcpyHtoD(self.pointer, array.ctypes.data, self.size), "copying to the GPU")

    def download(self, array: np.ndarray[Any, Any]) -> None:
        """Copy the buffer into a C-contiguous array of exactly this size, after all work on the GPU."""
        _same_size(array, self.size)
        checked(self._driver.cuCtxSynchronize(), "running the kernel")
        if self.size:
            checked(self._driver.cuMemcpyDtoH(array.ctypes.data, self.pointer, self.size), "copying from the GPU")

    def close(self) -> None:
        """Free the memory; a second call does nothing."""
        pointer, self.pointer = getattr(self, "pointer", 0), 0
        if pointer:
            self._driver.cuMemFree(pointer)  # after a fault this fails too, and the process ends soon

    def __del__(self) -> None:
        """Free what close() did not."""
        self.close()


def _same_size(array: np.ndarray[Any, Any], size: int) -> None:
    """Refuse an array that is not C-contiguous or not of ``size`` bytes."""
    if array.nbytes != size or not array.flags.c_contiguous:
        raise ValueError(f"needs a C-contiguous array of {size:,} bytes, not {array.nbytes:,}")
