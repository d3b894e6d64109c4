"""Reading and writing problems: ConstrINT text, and tuning spaces (parameters and Python restrictions)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constrint.constrint_text import parse_constrint, print_constrint
from constrint.domains import size
from constrint.errors import ConstrintError
from constrint.expr import exact_int
from constrint.model import Problem
from constrint.python_text import parse_restriction, print_expression

__all__ = ["load_space", "parse_constrint", "parse_restriction", "print_constrint", "print_space", "read_problem"]


def load_space(space: Mapping[str, Any], name: str = "") -> Problem:
    """The problem of a tuning space: {"tune_params": {name: [values]}, "restrictions": ["Python expression"]}.

    "name" is optional and so is "restrictions"; other keys are ignored. name: what messages call it where the space
    does not say. Raises ConstrintError for a missing or wrong entry, ParseError for a restriction.
    """
    if not isinstance(space, Mapping) or not isinstance(space.get("tune_params"), Mapping):
        raise ConstrintError(f"{name or 'the space'} needs an entry tune_params that maps names to lists of values")
    problem = Problem(str(space.get("name") or name or "space"))
    for parameter, values in space["tune_params"].items():
        if not isinstance(parameter, str) or not parameter.isidentifier():
            raise ConstrintError(f"the parameter name {parameter!r} in {problem.name} is no identifier")
        if not isinstance(values, list | tuple | range):
            raise ConstrintError(f"the values of the parameter {parameter!r} must be a list, not {values!r}")
        problem.variable(parameter, [exact_int(value, f"a value of the parameter {parameter!r}") for value in values])
    restrictions = space.get("restrictions") or []
    if not isinstance(restrictions, list | tuple):
        raise ConstrintError(f"restrictions in {problem.name} must be a list of strings, not {restrictions!r}")
    for number, restriction in enumerate(restrictions, 1):
        condition = parse_restriction(restriction, problem.domains, f"restriction {number}")
        problem.add(condition, restriction.strip())
    return problem


def print_space(problem: Problem) -> dict[str, Any]:
    """The problem as a tuning space, ready for JSON or YAML; ``load_space`` reads it back. Labels are lost.

    Raises ConstrintError for a domain of more than 1,000,000 values, which a space would have to list.
    """
    for name, domain in problem.domains.items():
        if size(domain) > 1_000_000:
            raise ConstrintError(f"a space lists every value, and {name!r} has {size(domain):,}; write ConstrINT text")
    return {
        "name": problem.name,
        "tune_params": {name: list(domain) for name, domain in problem.domains.items()},
        "restrictions": [print_expression(constraint.condition) for constraint in problem.constraints],
    }


def read_problem(path: str | Path) -> Problem:
    """The problem in a file: a tuning space in .json, .yaml or .yml (or any file whose text starts with "{"), else
    ConstrINT text.

    Raises ConstrintError for a file that cannot be read or is neither; a syntax error says line and column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConstrintError(f"cannot read {path}: {error}") from None
    suffix = path.suffix.lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and text.lstrip().startswith("{")):
        return load_space(_json(text, path), str(path))
    if suffix in (".yaml", ".yml"):
        return load_space(_yaml(text, path), str(path))
    return parse_constrint(text, str(path))


def _json(text: str, path: Path) -> Any:
    import json

    from constrint.errors import ParseError

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        source = text.split("\n")[error.lineno - 1]
        raise ParseError(f"not JSON: {error.msg}", source, error.lineno, error.colno, str(path)) from None
    except (RecursionError, ValueError) as error:
        raise ConstrintError(f"cannot read {path}: {error}") from None


def _yaml(text: str, path: Path) -> Any:
    import yaml

    from constrint.errors import ParseError

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise ConstrintError(f"{path} is not YAML: {error}") from None
        source = (text.split("\n")[mark.line : mark.line + 1] or [""])[0]
        reason = f"not YAML: {error.problem or error.context}"
        raise ParseError(reason, source, mark.line + 1, mark.column + 1, str(path)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConstrintError(f"{path} is not YAML: {error}") from None
