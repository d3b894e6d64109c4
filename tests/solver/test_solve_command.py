"""`tilesmith solve --explain`: what it says of a conflict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernelgen.commands import main

pytestmark = pytest.mark.unit

CLASH = "x == [1, 2, 4];\narea == 3 * x;\nunused == x;\narea >= 13;\n"


def explain(file: Path, *more: str) -> str:
    result = CliRunner().invoke(main, ["solve", "--explain", str(file), *more], prog_name="tilesmith")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_conflict_is_printed_with_the_definitions_it_rests_on(tmp_path: Path) -> None:
    file = tmp_path / "clash.txt"
    file.write_text(CLASH)
    assert explain(file).splitlines()[1:] == ["  area >= 13", "where, by definition:", "  area == 3 * x"]
    answer = json.loads(explain(file, "--json"))
    assert (answer["core"], answer["definitions"]) == (["area >= 13"], ["area == 3 * x"])


def test_without_definitions_none_are_announced(tmp_path: Path) -> None:
    file = tmp_path / "clash.txt"
    file.write_text("x == [1, 2, 4];\ny == [1, 2, 3];\nx * y == 12;\nx % y == 0;\n")
    assert len(explain(file).splitlines()) == 3
    assert json.loads(explain(file, "--json"))["definitions"] == []
