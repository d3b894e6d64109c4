"""The library schedule: R h of every step is a library's product, and a kernel of ours makes the rest of the step."""

from kernelgen.schedules.library.schedule import BACKWARD, FORWARD

SCHEDULES = (FORWARD, BACKWARD)
