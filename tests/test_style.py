"""ruff, mypy, and the arrows between the rooms that must not be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
HEAVY = {"numpy", "sympy", "ortools", "pydantic", "cuda", "cupy", "torch", "rich", "yaml", "ml_dtypes"}


def run(*arguments: str) -> None:
    """Run a module of this environment over the tree; a failure shows what it printed."""
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(arguments)}:\n{result.stdout}{result.stderr}"


def test_ruff() -> None:
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")


def test_mypy() -> None:
    run("mypy")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def modules(folder: str) -> list[Path]:
    """The Python files below a folder of the repository."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def offenders(folder: str, *forbidden: str) -> list[str]:
    """Files below ``folder`` that import one of the forbidden packages."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imports(path)
        if any(name == banned or name.startswith(banned + ".") for banned in forbidden)
    ]


def test_constrint_knows_nothing_of_kernelgen() -> None:
    assert not offenders("constrint", "kernelgen")


def test_emit_does_not_compile() -> None:
    assert not offenders("kernelgen/emit", "kernelgen.build.compile", "kernelgen.build.cache")


def test_cells_import_nothing_but_sympy() -> None:
    allowed = {"sympy", "kernelgen", *sys.stdlib_module_names}
    for path in modules("kernelgen/cells"):
        for name in imports(path):
            assert name.split(".")[0] in allowed, f"{path} imports {name}"
            assert not name.startswith("kernelgen.") or name.startswith(("kernelgen.cells", "kernelgen.errors")), name


def test_torch_stays_in_its_room() -> None:
    outside = [line for line in offenders("kernelgen", "torch") if not line.startswith("kernelgen/torch/")]
    assert not outside


def test_importing_costs_nothing() -> None:
    """No heavy import before it is needed: `tilesmith --help` and `import constrint` must stay quick."""
    code = f"import sys, kernelgen, constrint, kernelgen.commands; print({HEAVY!r} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()", result.stdout
