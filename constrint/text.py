"""Reading and writing problems: ConstrINT text, tuning spaces (parameters and Python restrictions), T1 documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from constrint.constrint_printing import print_constrint
from constrint.constrint_text import parse_constrint
from constrint.documents import TooLarge, read_text
from constrint.domains import size
from constrint.errors import ConstrintError, ParseError
from constrint.expr import Expr
from constrint.integers import shown
from constrint.model import Problem
from constrint.python_printing import print_expression
from constrint.python_text import check_python_name, parse_constraints, parse_number, parse_restriction
from constrint.t1 import load_t1, print_t1
from constrint.vocabulary import NONE, Vocabulary
from constrint.yaml_text import load_yaml

__all__ = [
    "FORMATS",
    "load_space",
    "load_t1",
    "parse_constrint",
    "parse_restriction",
    "print_constrint",
    "print_space",
    "print_t1",
    "read_problem",
    "write_problem",
]

FORMATS = ("constrint", "space", "t1")
"""ConstrINT text; tune_params and restrictions; Kernel Tuner's T1."""
ENTRIES = {"restrictions": ("constraints", "conditions"), "definitions": ()}
"""Entries of a space that may be left out, and what else they are called elsewhere."""
LARGEST_FILE = 64 << 20
"""Bytes of a file that are read."""


def load_space(space: Mapping[str, Any], name: str = "", vocabulary: Vocabulary = NONE) -> Problem:
    """The problem of a tuning space: {"tune_params": {name: [values]}, "restrictions": ["Python expression"]}.

    A value is a number, text, true, false or null; a restriction may also be a Python function, which is called
    (``constrint.tracing``), or such a function with the names of its parameters. "definitions": {name: expression}
    gives names to expressions over parameters and definitions before it. These, "name" and "restrictions" are
    optional; other keys are ignored, but not those that look like one of these misspelt. name: what messages call it
    where the space does not say. vocabulary: more names that expressions may use. Raises ConstrintError for a missing
    or wrong entry, ParseError for an expression.
    """
    if not isinstance(space, Mapping) or not isinstance(space.get("tune_params"), Mapping):
        raise ConstrintError(
            f"{name or 'the space'} needs an entry tune_params that maps names to lists of values{_instead(space)}"
        )
    _check_entries(space, name or "the space")
    problem = Problem(str(space.get("name") or name or "space"))
    for parameter, values in space["tune_params"].items():
        check_python_name(parameter, problem.name)
        if not isinstance(values, list | tuple | range):
            raise ConstrintError(f"the values of the parameter {parameter!r} must be a list, not {shown(values)}")
        problem.variable(parameter, values)
    problem.vocabulary = _defined(space.get("definitions") or {}, problem, vocabulary, name)
    restrictions = space.get("restrictions") or []
    if not isinstance(restrictions, list | tuple):
        raise ConstrintError(f"restrictions in {problem.name} must be a list of strings, not {shown(restrictions)}")
    for number, restriction in enumerate(restrictions, 1):
        add_restriction(problem, restriction, f"{name}, restriction {number}" if name else f"restriction {number}")
    return problem


def _instead(space: object) -> str:
    """What is there in the place of tune_params, for a message."""
    if not isinstance(space, Mapping):
        return "; it is empty" if space is None else f", and is {shown(space)}"
    if "tune_params" in space:
        return f", not {shown(space['tune_params'])}"
    near = get_close_matches("tune_params", [str(key).lower() for key in space], n=1, cutoff=0.8)
    return "".join(f"; did you mean that by {shown(key)}?" for key in space if str(key).lower() in near)


def _check_entries(space: Mapping[str, Any], where: str) -> None:
    """Raise ConstrintError for an entry that would be ignored and seems to mean one that is not there."""
    for key in space:
        for entry, others in ENTRIES.items():
            meant = str(key).lower() in others or get_close_matches(str(key).lower(), [entry], cutoff=0.8)
            if key != entry and entry not in space and meant:
                raise ConstrintError(f"{where} has an entry {shown(key)}, which is not read; is it {entry!r}?")


def add_restriction(problem: Problem, restriction: object, name: str = "") -> None:
    """Add a restriction as Kernel Tuner takes it: text, a function, or a function with the names of its parameters."""
    if isinstance(restriction, list | tuple) and len(restriction) in (2, 3) and callable(restriction[0]):
        from constrint.tracing import restriction_of

        condition, words = restriction_of(restriction[0], problem, restriction[1])
        problem.add(condition, words)
    elif callable(restriction) or isinstance(restriction, Expr):
        problem.add(restriction)
    else:
        text: str = restriction  # type: ignore[assignment]
        for condition, words in parse_constraints(
            text, problem.domains, name, problem.codings.texts, problem.vocabulary
        ):
            problem.add(condition, words)


def _defined(definitions: object, problem: Problem, vocabulary: Vocabulary, where: str) -> Vocabulary:
    """A vocabulary with a space's definitions; where: the file, for messages. Raises ConstrintError."""
    if not isinstance(definitions, Mapping):
        raise ConstrintError(
            f"definitions in {problem.name} must map names to expressions, not be {shown(definitions)}"
        )
    for name, text in definitions.items():
        check_python_name(name, problem.name)
        if name in problem.domains:
            raise ConstrintError(f"{name!r} in {problem.name} is a parameter and a definition; rename one of them")
        place = f"{where}, definition of {name}" if where else f"definition of {name}"
        value = parse_number(str(text), problem.domains, place, vocabulary, problem.codings.texts)
        vocabulary = replace(vocabulary, definitions={**vocabulary.definitions, name: value})
    return vocabulary


def print_space(problem: Problem) -> dict[str, Any]:
    """The problem as a tuning space, ready for JSON or YAML; ``load_space`` reads it back. Labels are lost.

    Raises ConstrintError for a domain of more than 1,000,000 values, which a space would have to list.
    """
    for name, domain in problem.domains.items():
        check_python_name(name, problem.name)
        if size(domain) > 1_000_000:
            raise ConstrintError(f"a space lists every value, and {name!r} has {size(domain):,}; write ConstrINT text")
    return {
        "name": problem.name,
        "tune_params": {name: list(problem.values(name)) for name in problem.domains},
        "restrictions": [print_expression(constraint.condition, problem.domains) for constraint in problem.constraints],
    }


def read_problem(
    path: str | Path, vocabulary: Callable[[Mapping[str, Any]], Vocabulary] = lambda document: NONE
) -> Problem:
    """The problem in a file: a tuning space or a T1 document in .json, .yaml or .yml (or any file whose text starts
    with "{"), else ConstrINT text. T1 is what has an entry "ConfigurationSpace".

    vocabulary: what gives the names that a space's expressions may use beside its own, of the whole document. Raises
    ConstrintError for a file that cannot be read, is longer than LARGEST_FILE or is neither; a syntax error says line
    and column.
    """
    path = _path(path)
    text = _read(path)
    suffix = path.suffix.lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and text.lstrip().startswith("{")):
        return _load(_json(text, path), str(path), vocabulary)
    if suffix in (".yaml", ".yml"):
        return _load(load_yaml(text, str(path)), str(path), vocabulary)
    return parse_constrint(text, str(path))


def write_problem(problem: Problem, path: str | Path, format: str | None = None) -> None:
    """Write a problem to a file that ``read_problem`` reads back.

    format: one of FORMATS; by default "t1" where the name ends in .t1.json, "space" for other .json, .yaml and .yml,
    else "constrint". Raises ConstrintError for what the format cannot hold, or a file that cannot be written.
    """
    path = _path(path)
    suffix = path.suffix.lower()
    if format is None:
        t1 = path.name.lower().endswith(".t1.json")
        format = "t1" if t1 else "space" if suffix in (".json", ".yaml", ".yml") else "constrint"
    if format not in FORMATS:
        raise ConstrintError(f"unknown format {shown(format)}; known: {', '.join(FORMATS)}")
    if format == "constrint":
        if suffix in (".json", ".yaml", ".yml"):
            raise ConstrintError(f"{path} would be read as {suffix[1:]}, not as ConstrINT text; choose another suffix")
        text = print_constrint(problem)
    else:
        document = print_space(problem) if format == "space" else print_t1(problem)
        text = _dump_yaml(document) if suffix in (".yaml", ".yml") else _dump_json(document)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConstrintError(f"cannot write {_short(path)}: {_reason(error)}") from None


def _path(path: object) -> Path:
    try:
        return Path(path)  # type: ignore[arg-type]
    except TypeError:
        raise ConstrintError(f"a file is named by a path, not {shown(path)} ({type(path).__name__})") from None


def _read(path: Path) -> str:
    """The text of a file, or of a pipe or device, which may never end. Raises ConstrintError."""
    try:
        return read_text(path, LARGEST_FILE, "utf-8-sig")
    except TooLarge:
        raise ConstrintError(
            f"{_short(path)} holds more than {LARGEST_FILE >> 20} MiB, the most that is read of a problem; "
            "state long lists of values as ranges, or build the problem in Python"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConstrintError(f"cannot read {_short(path)}: {_reason(error)}") from None


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without its name once more."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is no text in UTF-8 (byte {error.object[error.start]:#04x} at {error.start:,})"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _load(document: Any, name: str, vocabulary: Callable[[Mapping[str, Any]], Vocabulary]) -> Problem:
    try:
        if isinstance(document, Mapping) and "ConfigurationSpace" in document:
            return load_t1(document, name)
        return load_space(document, name, vocabulary(document) if isinstance(document, Mapping) else NONE)
    except ParseError:
        raise
    except ConstrintError as error:
        if name in str(error):
            raise
        raise ConstrintError(f"{name}: {error}") from None


def _dump_json(document: Any) -> str:
    import json

    return json.dumps(document, indent=1) + "\n"


def _dump_yaml(document: Any) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False))


def _json(text: str, path: Path) -> Any:
    import json

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        source = text.split("\n")[error.lineno - 1]
        raise ParseError(f"not JSON: {error.msg}", source, error.lineno, error.colno, str(path)) from None
    except (RecursionError, ValueError) as error:
        raise ConstrintError(f"cannot read {_short(path)}: {_reason(error)}") from None
