"""The wide schedule: blocks share a head, multiply by wgmma, and exchange what many sequences need through L2."""

from kernelgen.schedules.wide.backward import SCHEDULE as BACKWARD
from kernelgen.schedules.wide.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD, BACKWARD)
