"""The sdist and the wheel: what they hold, and that they install and run elsewhere; the Makefile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pybind11
import pytest
import setuptools

pytestmark = [pytest.mark.unit, pytest.mark.xdist_group("packaging")]  # one worker builds, once

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command, with more in its environment; its output, or a failure that shows it."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def plan(cell: str, gpu: str) -> list[str]:
    """The arguments of a small plan."""
    sizes = {"--batch": 16, "--seq": 64, "--heads": 2, "--head-dim": 32}
    return ["plan", cell, "--gpu", gpu, *(str(part) for pair in sizes.items() for part in pair), "--json"]


IGNORED = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.so", "*.tmp")
FOLDERS = (".ci", "benchmarks", "constrint", "cuda", "docs", "examples", "kernelgen", "profiles", "tests")
FILES = (
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "cli.py",
    "mkdocs.yml",
    "pyproject.toml",
    "setup.py",
)
NO_COMPILER = {"CC": "/no/compiler", "CXX": "/no/compiler"}
WITHOUT_CORE = "; constrint runs the Python engine, without the C++ core\n"


def files_below(root: Path) -> set[str]:
    """Every file below a folder, relative to it."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def build(tree: Path, what: str, to: Path, **environment: str) -> Path:
    """Build the sdist or the wheel of a tree with what is installed here; the file."""
    run(sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", to, cwd=tree, **environment)
    (built,) = to.iterdir()
    return built


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, so that nothing built before can slip in."""
    tree = tmp_path_factory.mktemp("copy")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=IGNORED)
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture(scope="module")
def unpacked(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked: all that follows is made from it."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(copy, "sdist", tmp_path_factory.mktemp("built"))) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer have it
        archive.extractall(folder)
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist, whose core only has to load."""
    return build(unpacked, "wheel", tmp_path_factory.mktemp("wheel"), CFLAGS="-O0", CXXFLAGS="-O0")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the dependencies of the environment that runs the tests; its python.

    They are borrowed through a path file, which does not bring the editable install along. pip is borrowed too: it
    installs into another environment where it is told of one.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    borrowed = dict.fromkeys(str(Path(module.__file__).parent.parent) for module in (setuptools, pybind11, click))
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    for libraries in (Path(place) / "nvidia" for place in borrowed):
        if libraries.is_dir():  # those are looked for in the environment's own folder alone
            (site / "nvidia").symlink_to(libraries)
    return python


def pip(python: Path, *arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Run pip for an environment that has none; its output."""
    own = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    return run(*own, *arguments, cwd=cwd, **environment)


@pytest.fixture
def python(bare: Path, tmp_path: Path) -> Iterator[Path]:
    """The python of that environment, without tilesmith before and after."""
    yield bare
    pip(bare, "uninstall", "--yes", "--quiet", "tilesmith", cwd=tmp_path)


def test_the_sdist_holds_the_whole_tree(copy: Path, unpacked: Path) -> None:
    expected, found = files_below(copy) | {"PKG-INFO", "setup.cfg"}, files_below(unpacked)
    assert {n for n in found ^ expected if not n.startswith(("build/", "tilesmith.egg-info/"))} == set()
    assert any(name.startswith("tests/schedules/golden/") for name in found)


def test_the_wheel_holds_exactly_what_it_should(unpacked: Path, wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"kernelgen/{folder}/{name}" for folder in ("cuda", "profiles") for name in files_below(unpacked / folder)
    }
    for package in ("kernelgen", "constrint"):
        found = files_below(unpacked / package)
        expected |= {f"{package}/{name}" for name in found if name.endswith((".py", "py.typed", "model.yaml"))}
    assert {name for name in names if "_native." not in name} == expected


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="no C++ compiler")
def test_the_core_is_built_and_stripped(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for start in ("constrint/_core_native.", "kernelgen/device/_launcher_native."):
        (built,) = [name for name in archive.namelist() if name.startswith(start)]
        binary = archive.read(built)
        for section in (b".symtab", b".debug_info", b".debug_line"):
            assert section not in binary
        assert b".dynsym" in binary


def test_the_wheel_installs_no_generic_module(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"constrint", "kernelgen"}


def test_an_installed_wheel_plans(wheel: Path, python: Path, tmp_path: Path) -> None:
    environment = python.parent.parent
    pip(python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    code = "import kernelgen, constrint; print(kernelgen.__file__, constrint.__file__)"
    where = run(python, "-c", code, cwd=tmp_path)
    assert all(str(environment) in path for path in where.split())
    tilings = json.loads(run(environment / "bin" / "tilesmith", *plan("lstm", "h200"), cwd=tmp_path))
    assert tilings
    assert set(tilings[0]) == {"schedule", "tiling", "registers", "shared_memory", "model_us_per_step"}


def test_without_a_compiler_pip_installs_and_shows_it(unpacked: Path, python: Path, tmp_path: Path) -> None:
    """In the wheel's name, which is all that pip shows of a build; an editable install works as well."""
    shared = ["--no-build-isolation", "--no-deps", "--no-index"]
    tree = tmp_path / "tree"
    shutil.copytree(unpacked, tree)
    shutil.rmtree(tree / "build", ignore_errors=True)
    shown = pip(python, "install", *shared, tree, cwd=tmp_path, **NO_COMPILER)
    assert "-0.without_cpp_core-" in shown
    tilesmith = python.parent / "tilesmith"
    assert run(tilesmith, "--version", cwd=tmp_path).endswith(WITHOUT_CORE)
    assert json.loads(run(tilesmith, *plan("lstm", "h200"), cwd=tmp_path))
    (check,) = [
        each for each in json.loads(run(tilesmith, "doctor", "--json", cwd=tmp_path)) if each["name"] == "constrint"
    ]
    assert check["status"] == "warning"
    assert "Install a C++ compiler" in check["advice"]
    pip(python, "install", *shared, "--editable", tree, cwd=tmp_path, **NO_COMPILER)
    assert run(tilesmith, "--version", cwd=tmp_path).endswith(WITHOUT_CORE)
    (tree / "constrint" / "_core_native.so").write_text("no library")
    assert "this Python cannot load it" in run(tilesmith, "doctor", cwd=tmp_path)


def test_wheels_are_configured_for_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    prefix = "Programming Language :: Python :: 3."
    promised = [text.removeprefix(prefix) for text in project["project"]["classifiers"] if text.startswith(prefix)]
    assert project["project"]["requires-python"] == f">=3.{promised[0]}"
    assert project["tool"]["cibuildwheel"]["build"].split() == [f"cp3{minor}-*" for minor in promised]


def test_make_alone_lists_its_targets() -> None:
    listed = run("make", cwd=ROOT)
    makefile = (ROOT / "Makefile").read_text()
    for phony in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE):
        for target in phony.split():
            assert re.search(rf"^make {target} +\S", listed, re.MULTILINE), target
            run("make", "--dry-run", target, cwd=ROOT)


def test_make_tune_installs_no_more_than_tuning_needs(tmp_path: Path) -> None:
    """PyTorch, which the tests need, takes gigabytes."""
    installs = {target: run("make", "--dry-run", target, f"VENV={tmp_path}", cwd=ROOT) for target in ("tune", "test")}
    assert '--editable "."' in installs["tune"]
    assert "[test]" not in installs["tune"]
    assert '--editable ".[test]"' in installs["test"]
    assert installs["test"].count("--editable") == 1


def test_a_bare_checkout_plans(tmp_path: Path) -> None:
    assert json.loads(run(sys.executable, ROOT / "cli.py", *plan("gru", "a100"), cwd=tmp_path))


def test_no_package_shadows_the_cuda_namespace() -> None:
    assert not (ROOT / "cuda" / "__init__.py").exists()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / link).exists(), link


def test_contributing_knows_every_marker() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    markers = [text.partition(":")[0] for text in project["tool"]["pytest"]["ini_options"]["markers"]]
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert [marker for marker in markers if f"| `{marker}` |" not in page] == []
