"""The streaming schedule: heads and batches of any size, their R and h read from L2 in every step."""

from kernelgen.schedules.streaming.backward import SCHEDULE as BACKWARD
from kernelgen.schedules.streaming.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD, BACKWARD)
