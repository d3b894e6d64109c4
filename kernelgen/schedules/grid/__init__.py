"""The grid schedule: blocks all over the GPU share a head, and talk through L2."""

from kernelgen.schedules.grid.backward import SCHEDULE as BACKWARD
from kernelgen.schedules.grid.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD, BACKWARD)
