"""The energy that a GPU takes, as its driver counts it, through NVML (the package nvidia-ml-py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kernelgen.device import gpu
from kernelgen.errors import LaunchError

SECONDS = 0.6
"""How long to run a kernel for its energy: the driver's counter goes on every 20 to 100 ms."""

MOST_SECONDS = 5.0
"""After which a counter that stands still is given up."""

INSTALL = "pip install 'tilesmith[energy]'"


class EnergyMeter:
    """The counter of GPU ``index``, as CUDA counts GPUs. Raises LaunchError, saying why, where there is none."""

    def __init__(self, index: int) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise LaunchError(f"energy is measured through NVML, which needs nvidia-ml-py: {INSTALL}") from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(_bus(index))
            self.millijoules()
        except pynvml.NVMLError as error:
            raise LaunchError(f"the driver does not count the energy of GPU {index}: {error}") from error

    def millijoules(self) -> int:
        """Since the driver was loaded."""
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def _bus(index: int) -> bytes:
    """The GPU's PCI address, by which NVML finds it: it counts GPUs otherwise than CUDA."""
    driver = gpu.require_driver()
    handle = gpu.checked(driver.cuDeviceGet(index), f"finding GPU {index}")
    address = gpu.checked(driver.cuDeviceGetPCIBusId(32, handle), "asking for the GPU's address")
    return bytes(address).split(b"\0")[0]


def energy_of(
    run: Callable[[], int], millijoules: Callable[[], int], clock: Callable[[], float] = time.monotonic
) -> float:
    """Millijoules of a launch, what the GPU takes when idle included.

    run: launches a kernel a number of times, waits, and says how often. The counter moves in jumps: what lies between
    two of them counts, at least SECONDS apart. Raises LaunchError for a counter that stands still.
    """
    began = clock()
    launches = 0

    def next_jump() -> tuple[int, float]:
        """Run until the counter moves; what it then says, and when."""
        nonlocal launches
        before = millijoules()
        while (now := millijoules()) == before:
            if clock() - began > MOST_SECONDS:
                raise LaunchError(f"the driver's counter of energy did not move within {MOST_SECONDS:.0f} s")
            launches += run()
        return now, clock()

    first, start = next_jump()
    launches = 0
    while clock() - start < SECONDS:
        launches += run()
    last, _ = next_jump()
    return (last - first) / launches
