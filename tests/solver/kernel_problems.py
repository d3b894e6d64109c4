"""The problems of benchmarks/lexicographic.py, for the tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "lexicographic.py"
    spec = importlib.util.spec_from_file_location("lexicographic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lexicographic"] = module
    spec.loader.exec_module(module)
    return module


kernels = load_benchmark()
