"""Energy, from a driver that is played: a counter that moves in jumps, and NVML's ways of refusing."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from kernelgen.device import energy
from kernelgen.device.energy import EnergyMeter, energy_of
from kernelgen.errors import LaunchError

pytestmark = pytest.mark.unit


class Gpu:
    """Takes 300 W in a launch of 1 ms; its counter moves every 70 ms, where it does."""

    def __init__(self, every: int = 70) -> None:
        self.now = 0.0  # milliseconds
        self.every = every

    def run(self) -> int:
        self.now += 10
        return 10

    def millijoules(self) -> int:
        self.now += 0.01
        return int(self.now // self.every) * self.every * 300 if self.every else 12345

    def clock(self) -> float:
        return self.now / 1e3


def test_energy_is_what_lies_between_two_jumps_of_the_counter() -> None:
    gpu = Gpu()
    assert energy_of(gpu.run, gpu.millijoules, gpu.clock) == pytest.approx(300, rel=0.02)
    assert 0.6 < gpu.clock() < 0.9


def test_a_counter_that_stands_still_is_given_up() -> None:
    gpu = Gpu(0)
    with pytest.raises(LaunchError, match="did not move within 5 s"):
        energy_of(gpu.run, gpu.millijoules, gpu.clock)


def _nvml(**given: Any) -> Any:
    class NVMLError(Exception): ...

    def refuse(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    calls = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByPciBusId": lambda bus: bus}
    calls |= {"nvmlDeviceGetTotalEnergyConsumption": refuse}
    return SimpleNamespace(NVMLError=NVMLError, **{**calls, **given})


def test_a_gpu_whose_energy_nobody_counts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_bus", lambda index: b"0000:01:00.0")
    monkeypatch.setitem(sys.modules, "pynvml", _nvml())
    with pytest.raises(LaunchError, match="does not count the energy of GPU 3: Not Supported"):
        EnergyMeter(3)
    monkeypatch.setitem(sys.modules, "pynvml", _nvml(nvmlDeviceGetTotalEnergyConsumption=lambda handle: 17))
    assert EnergyMeter(3).millijoules() == 17
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(LaunchError, match=r"pip install 'tilesmith.energy.'"):
        EnergyMeter(3)
