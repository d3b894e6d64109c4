"""ruff, mypy, and the arrows between the packages that must not be."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
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
    """Every module that a file imports, anywhere in it, and every name that it imports from one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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


ORDER = (
    "cells",
    "symbolic",
    "hardware",
    "program",
    "emit",
    "schedules",
    "build",
    "records",
    "device",
    "probing",
    "verify",
    "tuning",
    "torch",
    "commands",
)
"""kernelgen's packages in the order in which data travels: each may import those before it (docs/architecture.md)."""


def package_of(module: str) -> str:
    """The package of kernelgen that a module is in; empty for the modules beside the packages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "kernelgen" / parts[1]).is_dir() else ""


def test_every_package_has_its_place() -> None:
    folders = {path.name for path in (ROOT / "kernelgen").iterdir() if (path / "__init__.py").exists()}
    assert folders == {*ORDER}


def test_no_package_imports_a_later_one() -> None:
    """Anywhere in a file: inside functions, and for types alone, too."""
    upwards = []
    for path in modules("kernelgen"):
        own = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in imports(path):
            other = package_of(name)
            beside = not own and path.name != "__init__.py"  # kernelgen/errors.py and the like lie below all packages
            if name.startswith("kernelgen.") and other and (beside or (own and ORDER.index(other) > ORDER.index(own))):
                upwards.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not upwards


def test_no_circle_of_modules() -> None:
    """Modules that import each other, inside functions or for types too, are one module in two files."""
    for folder in ("kernelgen", "constrint"):
        names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules(folder)}
        graph = {name: {found for found in imports(path) if found in names} for name, path in names.items()}
        try:
            tuple(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            pytest.fail(" -> ".join(error.args[1]))


def test_files_have_one_job() -> None:
    """A module that has grown beyond this has a second one."""
    lengths = {path: path.read_text().count("\n") for folder in ("kernelgen", "constrint") for path in modules(folder)}
    assert not [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > 450]


def test_cells_import_nothing_but_sympy() -> None:
    allowed = {"sympy", "kernelgen", *sys.stdlib_module_names}
    for path in modules("kernelgen/cells"):
        for name in imports(path):
            assert name.split(".")[0] in allowed, f"{path} imports {name}"


def test_torch_stays_in_its_package() -> None:
    outside = [line for line in offenders("kernelgen", "torch") if not line.startswith("kernelgen/torch/")]
    assert not outside


def test_importing_costs_nothing() -> None:
    """No heavy import before it is needed: `tilesmith --help` and `import constrint` must stay quick."""
    code = f"import sys, kernelgen, constrint, kernelgen.commands; print({HEAVY!r} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()", result.stdout
