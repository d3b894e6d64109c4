"""The code in Markdown pages: fenced blocks, and diffs between them and the source."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^(?P=indent)```$',
    flags=re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. title: as its first line gives it, such as the name of a file; else empty."""

    language: str
    title: str
    text: str


def blocks(markdown: str, *languages: str) -> list[Block]:
    """The fenced blocks of these languages, or of all, in order."""
    found = [
        Block(match["language"], match["title"] or "", textwrap.dedent(match["text"]))
        for match in _FENCE.finditer(markdown)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands(markdown: str) -> list[list[str]]:
    """Every command of the shell blocks, without comments."""
    lines = [line for block in blocks(markdown, "sh") for line in block.text.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def apply_diff(text: str, diff: str) -> str:
    """A text with a diff's hunks, separated by lines "@@", applied; what a hunk replaces must be there exactly once.

    Raises AssertionError where it is not.
    """
    for hunk in re.split(r"^@@$\n", diff, flags=re.MULTILINE):
        lines = hunk.rstrip("\n").split("\n")
        before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
        assert text.count(before) == 1, f"found {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text


def apply_diffs(root: Path, diffs: list[Block], files: Mapping[str, str]) -> set[Path]:
    """Change the files below a folder by diffs whose titles ``files`` leads to paths; what was changed."""
    changed = set()
    for diff in diffs:
        path = root / files[diff.title]
        try:
            path.write_text(apply_diff(path.read_text(), diff.text))
        except AssertionError as error:
            raise AssertionError(f"the diff of {diff.title} does not fit {files[diff.title]}: {error}") from None
        changed.add(path)
    return changed
