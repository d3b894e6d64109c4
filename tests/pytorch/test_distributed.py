"""A model on two processes, by DistributedDataParallel, by FSDP2 and by heads: the gradients of one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TINY = "--device cpu --processes 2 --cell lstm --heads 2 --hidden 16 --layers 2 --batch 2 --seq 4 --repetitions 1"


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "distributed.py"), *TINY.split(), "--json", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert found["errors"].keys() == {"DistributedDataParallel", "fully_shard"}
    assert max(found["errors"].values()) < 1e-5
    assert found["ms"].keys() == {"one process", *found["errors"], "all-reduce alone"}
    assert found["numbers"] == 2 * (16 * 16 + 16) + 2 * (64 * 16 + 64 * 8 + 2 * 64)


def test_heads_on_two_processes_are_those_of_one() -> None:
    command = [sys.executable, str(ROOT / "examples" / "tensor_parallel.py"), "--device", "cpu", "--layer-norm"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = re.findall(r"^error of (\w+) (\S+)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in errors] == ["output", "gradients"]
    assert max(float(value) for _, value in errors) < 1e-12
