"""The public names of the packages, as one meets them in an interpreter, and what they say of wrong arguments."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import constrint
import kernelgen
from kernelgen.cells import language, load_cell
from kernelgen.cells.registry import register
from kernelgen.errors import CellError, ConfigError
from kernelgen.records.config_reading import read_cubins, read_program

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["constrint", "kernelgen", "kernelgen.torch"])
def test_dir_lists_the_public_names_before_they_are_used(package: str) -> None:
    code = f"import {package} as package; print(*dir(package))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    public = importlib.import_module(package).__all__
    assert {name for name in done.stdout.split() if not name.startswith("__")} == set(public)
    assert all(hasattr(importlib.import_module(package), name) for name in public)


def test_packages_say_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in (constrint, kernelgen):
        monkeypatch.setattr(metadata, "version", lambda name: f"1.2 of {name}")
        assert package.__version__ == "1.2 of tilesmith"
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert constrint.__version__ == kernelgen.__version__ == "0+checkout"


def test_a_type_checker_knows_the_public_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    names = ", ".join(language.__all__)
    file.write_text(
        f"import kernelgen\nfrom constrint import Problem\nfrom kernelgen.cells import {names}\n"
        "from kernelgen.torch import LSTM\n\n"
        "for each in (Cell, Gate, kernelgen.load, Problem, LSTM):\n    print(each)\nreveal_type(Gate('a').bias)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "bool"' in done.stdout


def test_what_is_no_cell_is_said() -> None:
    with pytest.raises(CellError, match=r"a cell is named by text, .* not 3"):
        load_cell(3)  # type: ignore[arg-type]
    with pytest.raises(CellError, match=r"register\(\) takes a Cell, not 'lstm'; a name of the library"):
        register("lstm")  # type: ignore[arg-type]


def test_a_configuration_is_read_by_its_path_as_text() -> None:
    for read in (kernelgen.load_config, read_program, read_cubins):
        with pytest.raises(ConfigError, match=r"cannot read nothing\.yaml"):
            read("nothing.yaml")
