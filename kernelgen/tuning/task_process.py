"""What a task's process runs. It imports at once what every task needs, while whoever started it has other work."""

from __future__ import annotations

from contextlib import suppress

from kernelgen import schedules
from kernelgen.build.compile import compiler_version
from kernelgen.errors import CompileError
from kernelgen.tuning.task_worker import run_task
from kernelgen.verify import validate

__all__ = ["compiler_version", "run_task", "schedules", "validate"]

with suppress(CompileError):  # the first task says so
    compiler_version()
