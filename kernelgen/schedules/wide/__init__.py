"""The wide schedule: blocks share a head, multiply by wgmma, and exchange h of many sequences through L2."""

from kernelgen.schedules.wide.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD,)
