"""`tilesmith solve`: what it says of a conflict, and of sizes, limits and files that no problem should have."""

from __future__ import annotations

import json
import textwrap
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
    assert explain(file).splitlines()[1:] == [
        "  area >= 13 (the others allow at most 12)",
        "where, by definition:",
        "  area == 3 * x",
    ]
    answer = json.loads(explain(file, "--json"))
    assert (answer["core"], answer["definitions"]) == (["area >= 13"], ["area == 3 * x"])
    assert answer["nearest"] == [{"most": 12}]


def test_without_definitions_none_are_announced(tmp_path: Path) -> None:
    file = tmp_path / "clash.txt"
    file.write_text("x == [1, 2, 4];\ny == [1, 2, 3];\nx * y == 12;\nx % y == 0;\n")
    assert len(explain(file).splitlines()) == 3
    assert json.loads(explain(file, "--json"))["definitions"] == []


def refused(*words: str) -> str:
    result = CliRunner().invoke(main, ["solve", *words], prog_name="tilesmith")
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


def test_a_problem_whose_definitions_clash_is_not_called_feasible(tmp_path: Path) -> None:
    file = tmp_path / "clash.txt"
    file.write_text("A == [1, 2];\n5 <= A;\nS == 0 * A;\n")
    assert json.loads(explain(file, "--json"))["status"] == "infeasible"
    assert explain(file).startswith("infeasible")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e999"])
def test_seconds_are_a_number(tmp_path: Path, seconds: str) -> None:
    file = tmp_path / "clash.txt"
    file.write_text(CLASH)
    assert "Invalid value for '--seconds'" in refused(str(file), f"--seconds={seconds}")


def test_an_estimate_says_how_good_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "product.txt"
    file.write_text("x == [1 .. 60];\ny == [1 .. 60];\nz == [1 .. 60];\nx * y * z == 720;\n")

    def asked(*more: str) -> str:
        result = CliRunner().invoke(main, ["solve", "--estimate", str(file), *more], prog_name="tilesmith")
        assert result.exit_code == 0, result.output
        return result.stdout

    count = json.loads(CliRunner().invoke(main, ["solve", "--count", str(file), "--json"]).stdout)["count"]
    exact = {"count": count, "error": 0, "least": count, "most": count}
    assert json.loads(asked("--json"))["estimate"] == exact
    assert asked().startswith(f"{count} solutions (")
    monkeypatch.setattr("constrint.estimate.EXACT", (1,))
    monkeypatch.setattr("constrint.estimate.RELAXED", (1,))
    monkeypatch.setattr("constrint.factor.SMALL", 0)
    found = json.loads(asked("--json"))
    assert found["status"] == "feasible"
    estimate = found["estimate"]
    assert abs(estimate["count"] - count) < 5 * estimate["error"]
    assert estimate["least"] <= count <= estimate["most"]
    assert asked().startswith("about ")


def test_limits_fit_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "clash.txt"
    file.write_text(CLASH)
    assert "--limit" in refused(str(file), "--all", "--limit", "1" + 40 * "0")


def test_files_that_are_no_problem(tmp_path: Path) -> None:
    assert "more than 64 MiB" in refused("/dev/zero")
    file = tmp_path / "space.json"
    file.write_text('{"tune_params": {"x": [1, 2]}, "restrictions": [""]}')
    assert "the restriction is empty" in refused(str(file))
    file.write_text("[" * 100_000)
    assert "cannot read" in refused(str(file))
    file = tmp_path / "zeros.txt"
    file.write_bytes(bytes(100_000))
    assert len(refused(str(file))) < 10_000


@pytest.mark.parametrize("question", [["--count"], ["--explain"], ["--best", "x"], ["--all", "--limit", "3"], []])
def test_numbers_of_300_digits(tmp_path: Path, question: list[str]) -> None:
    large = "9" * 300
    file = tmp_path / "large.txt"
    file.write_text(f"x == [1, {large}];\ny == [1 .. {large}];\nx * y <= {large};\n")
    result = CliRunner().invoke(main, ["solve", str(file), *question], prog_name="tilesmith")
    assert result.exit_code == 0, result.output
    if "--all" in question:
        return
    file.write_text(f"x == [1 .. {large}];\ny == [1 .. {large}];\nx * y == {large};\nx + y >= 4;\n")
    result = CliRunner().invoke(main, ["solve", str(file), *question, "--seconds", "0.1"], prog_name="tilesmith")
    assert result.exit_code == 0, result.output


def test_counts_of_thousands_of_digits_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("".join(f"x{i} == [1 .. {10**9}];\n" for i in range(500)))
    result = CliRunner().invoke(main, ["solve", str(file), "--count", "--json"], prog_name="tilesmith")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("0") > 4500


def test_two_questions_at_once_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "clash.txt"
    file.write_text(CLASH)
    assert "--count and --all are two questions" in refused(str(file), "--all", "--count")
    assert "--best and --explain are two questions" in refused(str(file), "--explain", "--best", "x")


def remarks(file: Path, text: str, *more: str) -> str:
    file.write_text(text)
    result = CliRunner().invoke(main, ["solve", str(file), *more], prog_name="tilesmith")
    assert result.exit_code == 0, result.output
    return result.stderr


def test_a_name_that_seems_misspelt_is_told(tmp_path: Path) -> None:
    """In ConstrINT's text a new name is a new variable; what is defined, or used again, is meant."""
    file = tmp_path / "text.txt"
    said = remarks(file, "TILE == [1 .. 4];\nWARPS == [1, 2];\nTILE * WARPS <= 4;\nTLIE * 2 == 8;\n")
    assert "TLIE is in one statement alone" in said
    assert "did you mean TILE?" in said
    assert not remarks(file, "TILE == [1 .. 4];\nTILES == 2 * TILE;\nTILE2 * 2 == 8;\nTILE2 > TILE;\n")
    assert "has no variables" in remarks(file, "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"tune_params": {"x": "a"}}', "a.json: the values of the parameter 'x' must be a list, not 'a'"),
        ("a.json", '{"tune_params": {"x": []}}', "a.json: the variable 'x' has no values"),
        ("a.yaml", "tune_params: {x: [1], yy: [1]}\nrestrictions: [x > yz]", "a.yaml, restriction 1, line 1, column 5"),
        ("a.yaml", "tune_params: {x: [1], yy: [1]}\nrestrictions: [x > yz]", "unknown name 'yz'; did you mean yy?"),
        ("a.yaml", "tune_params: {x: [1]}\ndefinitions: {y: z}\n", "a.yaml, definition of y, line 1"),
        ("a.yaml", "tune_params: {x: [1]}\ngpu: h200\nrestrictions: [x < warp_sise]", "did you mean warp_size?"),
        ("a.yaml", "tune_param: {x: [1]}\n", "did you mean that by 'tune_param'?"),
        ("a.yaml", "tune_params: [x]\n", "lists of values, not ['x']"),
        ("a.yaml", "", "lists of values; it is empty"),
        ("a.json", "[1]", "lists of values, and is [1]"),
        ("a.txt", b"\xff\xfe", "a.txt: it is no text in UTF-8 (byte 0xff at 0)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_names_the_file_and_the_place(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refused(str(tmp_path / name))


@pytest.mark.parametrize("power", ["2 ^ 3 ^ 4 ^ 5 ^ 6", "(2 ^ 3000) ^ 2000", "B ^ B ^ B ^ B"])
@pytest.mark.parametrize("engine", ["native", "python", "cp-sat"])
def test_a_power_of_too_many_digits_to_print_is_refused_in_words(tmp_path: Path, power: str, engine: str) -> None:
    file = tmp_path / "power.txt"
    file.write_text(f"B == [2 .. 9];\nA == {power};\n")
    assert "a power may reach" in (said := refused(str(file), "--engine", engine)) or "has more than" in said


def test_an_answer_of_no_solution_leads_to_the_reason(tmp_path: Path) -> None:
    assert "--explain says which" in remarks(tmp_path / "clash.txt", CLASH)


def test_the_text_that_the_documentation_shows_has_a_solution(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "constrint_formats.md").read_text()
    text = textwrap.dedent(page.split("## ConstrINT text\n\n")[1].split("\n\n")[0])
    assert not remarks(tmp_path / "shown.txt", text)


def test_an_answer_that_time_did_not_allow_says_so(tmp_path: Path) -> None:
    assert "the time that --seconds allows passed" in remarks(tmp_path / "long.txt", CLASH, "--seconds", "1e-9")
