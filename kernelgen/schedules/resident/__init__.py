"""The resident schedule: one block holds the recurrent matrix of one head and runs a tile of the batch through time."""

from kernelgen.schedules.resident.backward import SCHEDULE as BACKWARD
from kernelgen.schedules.resident.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD, BACKWARD)
