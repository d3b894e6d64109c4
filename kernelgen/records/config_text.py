"""The text of a tuned configuration: YAML that a person likes to read, and errors that a person understands."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from constrint.documents import TooLarge, load_yaml, read_text
from kernelgen.errors import ConfigError

if TYPE_CHECKING:
    import pydantic

MOST_BYTES = 1 << 20
"""Larger files are refused: a configuration has a few thousand bytes, plus the text of a user's cell."""


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, lists of values on one line, nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


def _row(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = not any(isinstance(each, dict) for each in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _row)


def dump(fields: dict[str, Any]) -> str:
    """Fields (JSON values) as YAML, in their order."""
    return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def parse(path: Path) -> Any:
    """Read a YAML file. Raises ConfigError: unreadable, too large, or not YAML (with line and column)."""
    try:
        return load_yaml(read_text(path, MOST_BYTES))
    except TooLarge as error:
        raise ConfigError(f"{path} is no tuned configuration: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {reason(error)}") from error


def explain(error: pydantic.ValidationError) -> list[str]:
    """One line for each field that is missing, unknown or wrong: its place and the problem."""
    lines = []
    problems = error.errors(include_url=False, include_context=False)
    missing = [each["loc"] for each in problems if each["type"] in ("missing", "missing_argument")]
    for problem in problems:
        place = ".".join(str(part) for part in problem["loc"])
        kind = problem["type"]
        if kind in ("missing", "missing_argument"):
            lines.append(f"  {place}: is missing")
        elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
            beside = [str(loc[-1]) for loc in missing if loc[:-1] == problem["loc"][:-1]]
            near = difflib.get_close_matches(str(problem["loc"][-1]), beside, n=1)
            lines.append(f"  {place}: no such field" + (f"; did you mean {near[0]}?" if near else ""))
        elif kind == "string_pattern_mismatch":
            lines.append(f"  {place}: is not well formed: {_short(problem['input'])}")
        else:
            message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
            lines.append(f"  {place}: {message}, not {_short(problem['input'])}")
    return lines


def reason(error: Exception) -> str:
    """Why a file could not be read or written, on one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _short(value: object) -> str:
    """A wrong value, as far as it fits on a line."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
