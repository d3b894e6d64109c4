"""The cluster schedule: the blocks of a thread block cluster share the recurrent matrix of one head."""

from kernelgen.schedules.cluster.backward import SCHEDULE as BACKWARD
from kernelgen.schedules.cluster.forward import SCHEDULE as FORWARD

SCHEDULES = (FORWARD, BACKWARD)
