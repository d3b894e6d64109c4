"""Whatever is typed, and whatever files hold, a command ends with an answer or with one message."""

from __future__ import annotations

import os
import pickle
import re
import resource
import select
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fuzzing import draw_call

from kernelgen.commands.group import main

SECONDS = 60
"""What a call may take; none of these asks for more than a few."""

MEMORY = 8 << 30
"""Bytes of address space that a call may take."""


def outcome(call: list[str]) -> Any:
    """Run a call in a child process: (exit status, stderr, what was raised); None for one that hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        result = CliRunner().invoke(main, call, prog_name="tilesmith")
        raised = None if isinstance(result.exception, SystemExit) else result.exception
        answer = (result.exit_code, result.stderr[:4000], repr(raised) if raised else "")
        with os.fdopen(writing, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        ready, _, _ = select.select([file], [], [], SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        data = file.read()
    _, status = os.waitpid(child, 0)
    if not ready:
        return None
    return pickle.loads(data) if data else (status, "", f"the process died with status {status}")


def faults(seeds: range, tuned: Path) -> list[str]:
    """The calls that did not end as they should, one a line."""
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            call = draw_call(seed, Path(folder), tuned)
            result = outcome(call)
        shown = f"seed {seed}: {' '.join(call)[:300]!r}: "
        if result is None:
            found.append(f"{shown}hangs")
            continue
        status, errors, raised = result
        if raised or status not in (0, 2):
            found.append(f"{shown}status {status}, {raised}")
        elif "Traceback" in errors or (status == 2 and len(re.findall("^Error: ", errors, re.MULTILINE)) != 1):
            found.append(f"{shown}says {errors[:300]!r}")
    return found


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")


@pytest.mark.unit
def test_a_sample_of_calls_ends_in_words(tuned: Path) -> None:
    assert not faults(range(40), tuned)


@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(20))
def test_calls_end_in_words(tuned: Path, part: int) -> None:
    assert not faults(range(1000 + 100 * part, 1100 + 100 * part), tuned)
