"""The streaming schedule in Triton: R is read in every step, which is a launch of its own."""

from kernelgen.schedules.triton_streaming.schedule import BACKWARD, FORWARD

SCHEDULES = (FORWARD, BACKWARD)
