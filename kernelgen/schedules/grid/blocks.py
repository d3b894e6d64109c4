"""What both passes of the grid schedule ask of the blocks that share a head."""

from __future__ import annotations

from constrint import Problem
from kernelgen.hardware.profile import Profile
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.numbers import Int


def nothing_to_share(schedule: str, shape: Shape) -> str:
    """Why a schedule does not run heads of so few units, as a sentence; else empty."""
    if shape.head_dim > 8:
        return ""
    return (
        f"the {schedule} schedule shares the units of a head out to blocks, 8 at a time; a head of "
        f"{shape.head_dim} has nothing to share"
    )


def run_together(problem: Problem, profile: Profile, blocks: Int) -> None:
    """Require that all ``blocks`` of a launch run at the same time."""
    problem.add(
        blocks <= profile.multiprocessors,
        f"blocks of all heads and tiles of the batch: at most {profile.multiprocessors} on {profile.name}, one on "
        "each multiprocessor, since all must run at the same time",
    )
