"""The wheel: built, installed into an empty environment elsewhere, and used there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; its output, or a failure that shows it."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def plan(cell: str, gpu: str) -> list[str]:
    """The arguments of a small plan."""
    sizes = {"--batch": 16, "--seq": 64, "--heads": 2, "--head-dim": 32}
    return ["plan", cell, "--gpu", gpu, *(str(part) for pair in sizes.items() for part in pair), "--json"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the source tree, so that nothing built before can slip in."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("constrint", "kernelgen", "cuda", "profiles"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tree / "dist", cwd=tree)
    (built,) = (tree / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_headers_profiles_and_the_core(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "kernelgen/cuda/resident.cuh",
        "kernelgen/cuda/emulate/ptx.hpp",
        "kernelgen/profiles/h200.yaml",
        "kernelgen/py.typed",
        "constrint/py.typed",
    ):
        assert name in names
    if shutil.which("g++") or shutil.which("c++"):
        assert any(name.startswith("constrint/_core_native.") for name in names), "the C++ core was not built"


def test_the_wheel_installs_no_generic_module(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"constrint", "kernelgen"}


def test_an_installed_wheel_plans(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # The dependencies are borrowed from the environment that runs the tests; a path file does not bring its
    # editable install along.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    code = "import kernelgen, constrint; print(kernelgen.__file__, constrint.__file__)"
    where = run(python, "-c", code, cwd=tmp_path)
    assert all(str(environment) in path for path in where.split())
    tilings = json.loads(run(environment / "bin" / "tilesmith", *plan("lstm", "h200"), cwd=tmp_path))
    assert tilings
    assert set(tilings[0]) == {"schedule", "tiling", "registers", "shared_memory", "model_us_per_step"}


def test_a_bare_checkout_plans(tmp_path: Path) -> None:
    assert json.loads(run(sys.executable, ROOT / "cli.py", *plan("gru", "a100"), cwd=tmp_path))


def test_no_package_shadows_the_cuda_namespace() -> None:
    assert not (ROOT / "cuda" / "__init__.py").exists()
