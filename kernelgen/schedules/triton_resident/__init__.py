"""The resident schedule in Triton: one program holds the recurrent matrix of one head, in registers."""

from kernelgen.schedules.triton_resident.schedule import BACKWARD, FORWARD

SCHEDULES = (FORWARD, BACKWARD)
