"""tilesmith probe on a GPU: everything that it can run ends, and gives figures that a GPU may have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import fine

from kernelgen.device import gpu
from kernelgen.hardware.files import LATENCIES
from kernelgen.hardware.profile import load_profile
from kernelgen.probing.catalogue import COUNTED, lacking

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(gpu.why_no_gpu() is not None, reason="needs a GPU")]


def test_a_gpu_is_measured_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    answer = json.loads(fine("probe --json --name mine -o", path))
    assert (answer["failures"], answer["incomplete"]) == ([], [])
    made = load_profile(path)
    profile = gpu.device().profile()
    has = {name for name in (*LATENCIES, COUNTED) if not lacking(profile, name)}
    assert {point["name"] for point in answer["points"]} == has
    assert made.multiprocessors == profile.multiprocessors
    assert made.assumed == ()
    for point in answer["points"]:
        assert 0 < point["least"] <= point["value"] <= point["most"]
    assert 5 < made.latency("shared_load") < 100
    assert 2 < made.latency("mma_interval") <= made.latency("mma") < 200
    assert made.latency("barrier", 32) < made.latency("barrier", 1024) < made.latency("grid_barrier_atomic", 16)
    assert made.latency("shared_load") < made.latency("global_load")
