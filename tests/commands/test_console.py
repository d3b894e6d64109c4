"""Tables: as wide as the terminal where that can be, and never cut off."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kernelgen.commands import console

pytestmark = pytest.mark.unit

NAMES = ("a100-40gb", "a100-80gb", "rtx4090")
COLUMNS = ("name", "GPU", "shared_memory", "last", "also called")
ROWS = [(name, f"NVIDIA and some more words of {name}", "166,912", "", "") for name in NAMES]


def printed(monkeypatch: pytest.MonkeyPatch, width: int, together: tuple[str, ...] = ()) -> list[str]:
    """The lines of the table on a terminal of that width."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "console", lambda: Console(file=stream, width=width, highlight=False))
    console.print_table(COLUMNS, ROWS, right=("shared_memory",), together=together)
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]


def test_a_table_that_fits_has_all_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 100)
    assert lines[1].split() == ["name", "GPU", "memory", "last", "also", "called"]
    assert len(lines) == 3 + len(ROWS)


@pytest.mark.parametrize("width", [60, 50, 40])
def test_a_narrow_table_folds_text_and_leaves_names_and_numbers_whole(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(monkeypatch, width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "last" not in text, "a column without values takes no room"
    assert all(name in text for name in NAMES)
    assert text.count("166,912") == len(ROWS)
    assert lines[1].endswith("memory"), "numbers stay on the right"
    assert lines[3].endswith("166,912")


def test_a_word_is_broken_only_where_it_must_be_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 20)
    assert max(map(len, lines)) > 20, "wider than the terminal, rather than cut off"
    letters = "".join(line for line in lines).replace(" ", "")
    assert all(part in letters for part in ("a100-", "40gb", "rtx4090", "words", "166,912"))


def test_columns_that_belong_together_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 70, together=("GPU", "shared_memory"))
    assert lines[0] == "tiling: GPU, shared_memory"
    assert lines[1].split()[:2] == ["name", "tiling"]


def test_one_thing_is_no_plural() -> None:
    assert [console.counted(number, "input") for number in (0, 1, 2, 1000)] == [
        "0 inputs",
        "1 input",
        "2 inputs",
        "1,000 inputs",
    ]


def test_columns_says_how_wide_an_output_is_that_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, width in (("40", 40), ("", console.PLAIN_WIDTH), ("wide", console.PLAIN_WIDTH)):
        monkeypatch.setenv("COLUMNS", said)
        assert console.console().width == width


def test_a_stage_of_unknown_length_shows_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(
        console, "console", lambda stderr: Console(file=stream, width=80, force_terminal=True, color_system=None)
    )
    with console.progress_bar() as bar:
        bar.show("planning", 0, 0)
    assert "planning" in stream.getvalue()
    assert "/" not in stream.getvalue()
    with console.progress_bar() as bar:
        bar.show("compiling", 3, 12)
    assert " 3/12 " in stream.getvalue()
