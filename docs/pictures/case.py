"""What the pictures of the resident kernel show: an LSTM on an H200, and the tiling that the model likes best."""

from __future__ import annotations

from kernelgen import Profile, Shape, load_cell, load_profile
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.cost import StepWork, Weights
from kernelgen.tuning.plan import plan

SHAPE = Shape(batch=16, seq=1024, heads=12, head_dim=64)
TITLE = "LSTM, 12 heads of 64 units, B = 16, bfloat16, on an H200"


def best() -> tuple[Profile, Tiling]:
    """The GPU, and the tiling."""
    profile = load_profile("h200")
    return profile, plan(load_cell("lstm"), SHAPE, profile, top=1, schedules=["resident"])[0]


def model(tiling: Tiling) -> tuple[StepWork, Weights]:
    """What a block does in a step, and how much of each phase the model takes to be exposed."""
    from kernelgen.schedules.resident.forward import SCHEDULE
    from kernelgen.schedules.shared.model import load_model

    work = SCHEDULE.work(load_cell("lstm"), SHAPE, load_profile("h200"), tiling.values)
    return work, load_model(SCHEDULE.package, "forward").clocks
