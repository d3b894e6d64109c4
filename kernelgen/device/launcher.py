"""DeviceKernel: a cubin's entry, loaded through cuda-core and ready to launch on any suitable GPU."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from kernelgen.device import gpu
from kernelgen.errors import LaunchError
from kernelgen.program.launch import Launch, LaunchRule
from kernelgen.program.rules import Sized

DEFAULT_DYNAMIC_SHARED_MEMORY = 48 * 1024
"""Bytes of dynamic shared memory that a kernel may use without asking (CUDA C++ Programming Guide)."""

PORTABLE_CLUSTER = 8
"""The largest cluster that needs no special permission (CUDA C++ Programming Guide, "Thread Block Clusters")."""


class DeviceKernel:
    """The entry ``entry`` of ``cubin``, compiled for ``arch``; ``launch`` says what its launches will ask for.

    The cubin is loaded when a GPU is prepared, so that no other GPU is touched. Raises LaunchError where there is no
    driver.
    """

    def __init__(self, cubin: bytes, entry: str, arch: str, launch: Launch | LaunchRule) -> None:
        gpu.require_driver()
        self.arch = arch
        self.entry = entry
        self._cubin = cubin
        self._launch = launch
        self._start = _core().launch
        self._code: Any = None
        self._kernel: Any = None
        self._ready: set[int] = set()

    def prepare(self, index: int) -> None:
        """Make the kernel launchable on GPU ``index``.

        Raises LaunchError if it was compiled for another architecture, asks for more than the GPU has, or cannot be
        loaded.
        """
        if index in self._ready:
            return
        device = gpu.device(index)
        if not gpu.runs_on(self.arch, device.compute_capability):
            raise LaunchError(
                f"the kernel was compiled for {self.arch}, which {device} cannot run; tune it again with --gpu auto"
            )
        with gpu.current(index):
            self._load()
        driver = gpu.require_driver()
        wanted = driver.CUfunction_attribute
        attributes = {}
        if self._launch.shared_memory > DEFAULT_DYNAMIC_SHARED_MEMORY:
            attributes[wanted.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] = self._launch.shared_memory
        if self._launch.cluster > PORTABLE_CLUSTER:
            attributes[wanted.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED] = 1
        handle = driver.CUkernel(int(self._kernel.handle))
        for attribute, value in attributes.items():
            gpu.checked(
                driver.cuKernelSetAttribute(attribute, value, handle, driver.CUdevice(index)),
                f"asking {device} for {self._launch.shared_memory:,} bytes of shared memory per block",
            )
        self._ready.add(index)

    def _load(self) -> None:
        """Load the cubin once; the driver brings it to every GPU that launches it."""
        if self._kernel is not None:
            return
        try:
            self._code = _core().ObjectCode.from_cubin(self._cubin)
            self._kernel = self._code.get_kernel(self.entry)
        except Exception as error:
            raise LaunchError(f"the driver cannot load the kernel {self.entry} for {self.arch}: {error}") from error

    @property
    def handle(self) -> int:
        """The driver's handle (CUkernel) of a kernel that is prepared."""
        return int(self._kernel.handle)

    def require_room(self, launch: Launch, shape: Sized) -> None:
        """Raise LaunchError unless the current GPU, which must be prepared, can run all blocks of a cooperative launch
        at the same time."""
        driver = gpu.require_driver()
        function = gpu.checked(
            driver.cuKernelGetFunction(driver.CUkernel(int(self._kernel.handle))), f"asking for {self.entry}"
        )
        fit = gpu.checked(
            driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, launch.block, launch.shared_memory),
            "asking how many blocks a multiprocessor runs",
        )
        attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        device = gpu.checked(driver.cuCtxGetDevice(), "asking for the current GPU")
        multiprocessors = gpu.checked(driver.cuDeviceGetAttribute(attribute, device), "asking for multiprocessors")
        blocks, room = math.prod(launch.grid), int(fit) * int(multiprocessors)
        if blocks > room:
            raise LaunchError(
                f"{self.entry} at {shape} is {blocks:,} blocks, all of which must run at the same time, and this GPU "
                f"has room for {room:,} ({int(fit)} on each of {int(multiprocessors)} multiprocessors); cut the batch "
                "into several, or have a kernel tuned for this one"
            )

    def clusters_that_fit(self, launch: Launch) -> int:
        """How many clusters of such a launch the current GPU, which must be prepared, runs at the same time."""
        driver = gpu.require_driver()
        function = gpu.checked(
            driver.cuKernelGetFunction(driver.CUkernel(int(self._kernel.handle))), f"asking for {self.entry}"
        )
        fit = gpu.checked(
            driver.cuOccupancyMaxActiveClusters(function, cluster_config(driver, launch)),
            f"asking how many clusters of {launch.cluster} blocks run at a time",
        )
        return int(fit)

    def start(self, stream: Any, config: Any, *arguments: Any) -> None:
        """Launch on a cuda-core stream of a prepared GPU that is current; returns before the kernel has run.

        config: from launch_config(). arguments: addresses as int (0 for null) and NumPy scalars.
        """
        try:
            self._start(stream, config, self._kernel, *arguments)
        except Exception as error:
            raise LaunchError(f"the launch of {self.entry} failed: {error}") from error


@lru_cache(maxsize=4096)
def launch_config(launch: Launch) -> Any:
    """A Launch as cuda-core's LaunchConfig, whose grid counts clusters where there are any; a GPU must be current then,
    which is asked whether it has them."""
    x, y, z = launch.grid
    options: dict[str, Any] = {"block": launch.block, "shmem_size": launch.shared_memory}
    if launch.cluster > 1:
        if x % launch.cluster:
            raise LaunchError(f"a grid of {x} blocks cannot be cut into clusters of {launch.cluster}")
        x //= launch.cluster
        options["cluster"] = launch.cluster
    if launch.cooperative:
        options["is_cooperative"] = True
    return _core().LaunchConfig(grid=(x, y, z), **options)


def cluster_config(driver: Any, launch: Launch) -> Any:
    """A Launch with clusters as the driver's own CUlaunchConfig, for its questions about occupancy."""
    size = driver.CUlaunchAttribute()
    size.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    size.value.clusterDim.x, size.value.clusterDim.y, size.value.clusterDim.z = launch.cluster, 1, 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
    config.blockDimX, config.blockDimY, config.blockDimZ = launch.block, 1, 1
    config.sharedMemBytes = launch.shared_memory
    config.attrs, config.numAttrs = [size], 1
    return config


@lru_cache(maxsize=1024)
def stream_of(handle: int) -> Any:
    """The cuda-core stream of a raw stream handle (0: the default stream)."""
    return _core().Stream.from_handle(handle)


def _core() -> Any:
    """The module cuda.core, or its experimental forerunner where that is all there is."""
    try:
        from cuda import core

        if hasattr(core, "LaunchConfig"):
            return core
        from cuda.core import experimental
    except ImportError as error:
        raise LaunchError(f"the package cuda-core is missing ({error}); reinstall tilesmith") from error
    return experimental
