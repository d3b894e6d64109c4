"""The documentation: tutorials run, pictures are what their scripts draw, links and names lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import command_line
import pytest
from pages import Block, apply_diffs, blocks

if TYPE_CHECKING:
    from kernelgen.program.task import Direction

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAIVE = DOCS / "tutorials" / "add_a_schedule.md"
"""Its code is held against files, and run, by test_schedule_naive.py."""

TUTORIALS = sorted({*(DOCS / "tutorials").glob("*.md")} - {NAIVE})


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Reader:
    """Somebody who follows a page from top to bottom, in a folder: files are written, commands and sessions run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}

    def follow(self, block: Block) -> None:
        """Do what one block says."""
        if block.title and block.language in ("python", "yaml", "json"):
            (self.folder / block.title).write_text(block.text)
        if block.language == "pycon":
            self.session(block.text)
        elif block.language == "sh":
            for line in block.text.splitlines():
                self.command(line)

    def session(self, text: str) -> None:
        """An interactive session that must print what it says; names live on in the next."""
        test = doctest.DocTestParser().get_doctest(text, self.names, "session", None, 0)
        report: list[str] = []
        doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
        self.names.update(test.globs)
        assert not report, "".join(report)

    def command(self, line: str) -> None:
        """A command, which ends well unless the line ends in "# fails"."""
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                runpy.run_path(str(self.folder / words[1]))
            assert re.fullmatch(r"(.*: True\n)+", output.getvalue()), output.getvalue()
        else:
            assert words[0] == "tilesmith"
            (command_line.refused if line.endswith("# fails") else command_line.fine)(shlex.join(words[1:]))


@pytest.mark.unit
@pytest.mark.parametrize("page", ["torch.md", "torch_modules.md", "lengths_and_resets.md", "clients.md"])
def test_the_examples_for_pytorch_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, as in a session."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    found = blocks((DOCS / page).read_text(), "python")
    assert found
    monkeypatch.setitem(sys.modules, "flashrnn", None)  # so that what a page puts there goes again
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in found:
        exec(compile(block.text, page, "exec"), names)


@pytest.mark.emulated
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path)
    found = blocks(page.read_text())
    assert any(block.language in ("pycon", "sh") for block in found)
    for block in found:
        reader.follow(block)


@pytest.mark.unit
def test_the_first_example_of_the_solver_runs() -> None:
    """It is no session: everything that it shows is called."""
    lines = (DOCS / "constrint.md").read_text().split("\n\n    from constrint import", 1)[1].split("\n\n|", 1)[0]
    exec(textwrap.dedent(f"    from constrint import{lines}"), {})


def command_lines(page: Path) -> list[str]:
    """The commands of a page's indented blocks, without what is said of each behind two spaces."""
    found = re.findall(r"^    (tilesmith \S.*)$", page.read_text(), flags=re.MULTILINE)
    return [re.split(r"\s{2,}", line)[0] for line in found]


@pytest.mark.unit
@pytest.mark.parametrize("page", [page for page in PAGES if command_lines(page)], ids=name_of)
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    """Commands, options and what options take; what stands for more is left out."""
    import click

    from kernelgen.commands import main

    for line in command_lines(page):
        name, *words = shlex.split(line.partition(" ")[2])
        if "..." in words:
            continue
        with click.Context(main, info_name="tilesmith") as context:
            command = main.get_command(context, name)
            assert command is not None, line
            if isinstance(command, click.Group) and words:
                own, command, words = command.resolve_command(context, words)
                assert own is not None, line
                assert command is not None, line
                name = own
            command.make_context(name, words, parent=context)


# ---- an operator for constrint, by its tutorial ----

OPERATOR = DOCS / "tutorials" / "add_a_constraint.md"

CHECK = """
import sys
sys.modules["constrint._core_native"] = None  # built from other sources
sys.path[:0] = [{root!r}, {root!r} + "/tests/solver"]
import constrint
from random_problems import random_problem, solutions_of
assert constrint.__file__.startswith({root!r})
used = 0
for seed in range(150):
    problem = random_problem(seed, 60)
    text = " ".join(constraint.label for constraint in problem.constraints)
    if "gcd(" in text:
        used += 1
        expected = len(solutions_of(problem))
        assert problem.count() == len(list(problem.solutions())) == expected, (seed, text)
        again = constrint.Problem()
        for name, domain in problem.domains.items():
            again.variable(name, domain)
        for constraint in problem.constraints:
            again.add(constrint.parse_restriction(constraint.label, problem.domains))
        assert again.count() == expected, (seed, text)
assert used > 30, used
small = constrint.Problem()
x, y = small.variable("x", range(-6, 13)), small.variable("y", range(-4, 9))
small.add(constrint.gcd(x, y) > 2)
assert small.count() == small.count(engine="cp-sat") == len(solutions_of(small))
assert constrint.parse_constrint(constrint.print_constrint(small)).count() == small.count()
"""


def with_operator(root: Path) -> set[Path]:
    """A copy of constrint, without its built core, changed as the tutorial says; what was changed."""
    shutil.copytree(ROOT / "constrint", root / "constrint", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (root / "tests" / "solver").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "solver" / "random_problems.py", root / "tests" / "solver")
    page = OPERATOR.read_text()
    files = dict(re.findall(r"^\| ([\w ]+) \| `([^`]+)` \|", page, flags=re.MULTILINE))
    diffs = blocks(page, "diff")
    assert {diff.title for diff in diffs} == files.keys()
    return apply_diffs(root, diffs, files)


@pytest.mark.unit
def test_the_operator_of_the_tutorial_is_right(tmp_path: Path) -> None:
    with_operator(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(root=str(tmp_path))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (example,) = blocks(OPERATOR.read_text(), "python")
    code = f"import sys; sys.modules['constrint._core_native'] = None; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run([sys.executable, "-c", code + example.text], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == example.text.rstrip().rpartition("# ")[2], done.stderr


@pytest.mark.unit
def test_the_operator_of_the_tutorial_compiles(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("no C++ compiler")
    changed = [str(path) for path in with_operator(tmp_path) if path.suffix == ".cpp"]
    assert len(changed) == 2
    command = [*shlex.split(compiler), "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror=switch", *changed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- pictures ----


def pictures() -> dict[str, Any]:
    """What docs/pictures/draw.py draws, by file."""
    before = sys.path.copy()
    try:
        found: dict[str, Any] = dict(runpy.run_path(str(DOCS / "pictures" / "draw.py"))["PICTURES"])
    finally:
        sys.path[:] = before
    return found


@pytest.mark.unit
def test_pictures_are_what_the_scripts_draw() -> None:
    drawn = pictures()
    assert {path.name for path in (DOCS / "pictures").glob("*.svg")} == set(drawn)
    for name, draw in drawn.items():
        text = (DOCS / "pictures" / name).read_text()
        assert text == draw(), f"{name} is not what is drawn now: python docs/pictures/draw.py"
        assert len(text.encode()) < 60_000
        assert "prefers-color-scheme: dark" in text
        assert "<text" in text
        assert any(f"pictures/{name}" in page.read_text() for page in PAGES), f"no page shows {name}"


# ---- links and names ----


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", page.read_text())):
        if not link.startswith(("http://", "https://", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{name_of(page)}: {link}"


def anchors_of(page: Path) -> set[str]:
    """What the headings of a page are called in links, as the site and GitHub do it."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_sections_that_a_page_links_to_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", re.sub(r"`[^`\n]*`", "", page.read_text())):
        if not link.startswith(("http://", "https://")):
            file, _, anchor = link.partition("#")
            assert anchor in anchors_of(page.parent / file if file else page), f"{name_of(page)}: {link}"


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks that begin with a folder of the repository; those that a reader is to make are let be."""
    made = {"kernelgen/cells/library/leaky.py", "kernelgen/schedules/naive/", "cuda/naive.cuh"}
    folders = "kernelgen|constrint|cuda|tests|benchmarks|examples|profiles|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./]+)`", page.read_text()):
        assert (ROOT / path).exists() or path in made or "NAME" in path, f"{name_of(page)}: {path}"


@pytest.mark.unit
def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES[1:])


@pytest.mark.unit
def test_the_index_leads_to_every_page() -> None:
    """To those of the reference by way of its own index."""
    linked = {Path("index.md")}
    for index in ("index.md", "reference/index.md"):
        text = (DOCS / index).read_text()
        linked |= {Path(index).parent / link for link in re.findall(r"\]\(([\w/]+\.md)\)", text)}
    assert {page.relative_to(DOCS) for page in PAGES[1:]} == linked


@pytest.mark.unit
def test_the_walks_through_the_source_can_be_walked() -> None:
    section = (DOCS / "architecture.md").read_text().partition("## Five walks")[2].partition("\n## ")[0]
    walks = section.split("\n### ")[1:]
    assert len(walks) == 5
    for walk in walks:
        steps = re.findall(r"^\d+\. `([\w/.]+)`: ((?:.|\n {3})*)", walk, flags=re.MULTILINE)
        assert len(steps) >= 4
        files = [file for file, _ in steps]
        assert len(set(files)) == len(files), f"a walk comes back to a file: {files}"
        for file, words in steps:
            text = (ROOT / file).read_text()
            names = re.findall(r"`(\w+)`", words.split(" (For ")[0])
            assert names
            for name in names:
                assert re.search(rf"\b{name}\b", text), f"{walk.splitlines()[0]}: {file} has no {name}"


@pytest.mark.unit
@pytest.mark.parametrize("schedule", ["resident", "cluster", "streaming"])
def test_a_schedules_page_names_every_tile_variable(schedule: str) -> None:
    from constrint import Problem
    from kernelgen import Shape, load_cell, load_profile
    from kernelgen.schedules import get
    from kernelgen.schedules.shared.batch_tiled import BatchTiled

    page, template = (DOCS / f"{schedule}.md").read_text(), get(schedule)
    assert isinstance(template, BatchTiled)
    for name in template.variables(Problem(), load_cell("lstm"), Shape(16, 8, 12, 64), load_profile("h200")):
        assert f"`{name}`" in page


CHOSEN = r"^\| (\d+) x (\d+) \| (\d+) \| (\w+) \| (\w+) \|$"
"""A row of docs/schedules.md: heads, units, sequences, and the schedules of both directions."""


@pytest.mark.unit
@pytest.mark.parametrize(
    "row", re.findall(CHOSEN, (DOCS / "schedules.md").read_text(), flags=re.MULTILINE), ids="-".join
)
def test_the_schedules_page_says_what_the_model_chooses(row: tuple[str, ...]) -> None:
    from kernelgen import Shape, load_cell, load_profile
    from kernelgen.tuning.plan import plan

    heads, units, batch = map(int, row[:3])
    shape = Shape(batch, 1024, heads, units)
    directions: tuple[Direction, Direction] = ("forward", "backward")
    chosen = [
        plan(load_cell("lstm"), shape, load_profile("h200"), direction=direction, top=1)[0].schedule
        for direction in directions
    ]
    assert chosen == [row[3], f"{row[4]}_backward"]


@pytest.mark.unit
def test_the_schedules_page_has_every_schedule() -> None:
    from kernelgen.schedules import schedule_names

    page = (DOCS / "schedules.md").read_text()
    assert {*re.findall(r"^\| \[(\w+)\]\(\w+\.md\) \|", page, flags=re.MULTILINE)} == {*schedule_names()}


@pytest.mark.unit
def test_the_reference_has_every_public_name() -> None:
    import constrint
    import kernelgen

    pages = {path.stem: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    entries = {stem: set(re.findall(r"^::: ([\w.]+)", text, flags=re.MULTILINE)) for stem, text in pages.items()}
    torch_names = re.search(
        r"^__all__ = (\[[^]]*\])$", (ROOT / "kernelgen/torch/__init__.py").read_text(), re.MULTILINE
    )
    assert torch_names is not None
    for stem, names in (
        ("constrint", constrint.__all__),
        ("kernelgen", kernelgen.__all__),
        ("torch", ast.literal_eval(torch_names.group(1))),
    ):
        shown = {entry.rpartition(".")[2] for entry in entries[stem]}
        if "kernelgen.errors" in entries[stem]:
            shown.add("TilesmithError")  # the page has the whole module
        assert {*names} <= shown, sorted({*names} - shown)
    assert not [entry for found in entries.values() for entry in found if re.search(r"\._", entry)]


@pytest.mark.unit
def test_the_glossary_has_the_words() -> None:
    page = (DOCS / "glossary.md").read_text()
    for word in ("B", "T", "H", "D", "G", "S", "K", "P", "G_in", "G_rec", "G_bias", "G_saved"):
        assert f"**{word}**" in page
    for word in ("tiling", "schedule", "cell", "gate", "profile", "trial", "recompute", "warp", "multiprocessor"):
        assert f"**{word}**" in page


@pytest.mark.unit
def test_make_docs_installs_the_extra_and_is_strict() -> None:
    done = subprocess.run(["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "mkdocs build --strict" in done.stdout
    (extra,) = re.findall(r"\.\[(\w+)\]\"\n", (ROOT / "Makefile").read_text().partition("$(VENV)/docs:")[2])[:1]
    assert extra == "docs"


@pytest.mark.unit
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs: make docs")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.html"))
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', pages), (
        "a page fetches from outside"
    )
    assert 'id="kernelgen.load"' in pages
    assert 'id="constrint.Problem.explain"' in pages
