"""The streamed grid schedule: the grid schedule for heads whose R no GPU holds; what does not fit comes every step."""

from kernelgen.schedules.streamed_grid.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD,)
