"""Kernel Tuner's T1 files: a tuning problem in JSON, of which constrint reads and writes the configuration space.

The format is github.com/odgaard/TuningSchema: "ConfigurationSpace" holds "TuningParameters", each with "Name", "Type"
and "Values" (a Python list in a string), and "Conditions", each with "Expression" and the "Parameters" it names.
"KernelSpecification" and the rest describe the kernel; constrint neither needs nor writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from constrint.domains import size
from constrint.errors import ConstrintError
from constrint.integers import shown
from constrint.model import Problem
from constrint.python_printing import print_expression
from constrint.python_text import check_python_name, parse_restriction
from constrint.value_text import MOST_VALUES, NoValue, read_values


def load_t1(document: Mapping[str, Any], name: str = "") -> Problem:
    """The problem of a T1 document. name: what messages call it.

    Values may be written as expressions of lists, which are parsed and never evaluated (``constrint.value_text``).
    Raises ConstrintError for a missing or wrong entry, and for values of another kind; ParseError for a condition.
    """
    space = document.get("ConfigurationSpace") if isinstance(document, Mapping) else None
    if not isinstance(space, Mapping) or not isinstance(space.get("TuningParameters"), list):
        raise ConstrintError(f"{name or 'the T1 document'} needs ConfigurationSpace with a list of TuningParameters")
    general = document.get("General")
    title = general.get("BenchmarkName") if isinstance(general, Mapping) else None
    problem = Problem(str(title or name or "space"))
    for entry in space["TuningParameters"]:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("Name"), str) or "Values" not in entry:
            raise ConstrintError(f"a tuning parameter in {problem.name} needs Name and Values, not {shown(entry)}")
        check_python_name(entry["Name"], problem.name)
        problem.variable(entry["Name"], _typed(_values(entry["Values"], entry["Name"]), entry.get("Type")))
    conditions = space.get("Conditions") or []
    if not isinstance(conditions, list):
        raise ConstrintError(f"Conditions in {problem.name} must be a list, not {shown(conditions)}")
    for number, condition in enumerate(conditions, 1):
        text = condition.get("Expression") if isinstance(condition, Mapping) else condition
        if not isinstance(text, str):
            raise ConstrintError(f"condition {number} in {problem.name} needs an Expression, not {shown(condition)}")
        texts = problem.codings.texts
        problem.add(parse_restriction(text, problem.domains, f"condition {number}", texts), text.strip())
    return problem


def print_t1(problem: Problem) -> dict[str, Any]:
    """The problem as a T1 document, ready for JSON; ``load_t1`` reads it back. Labels are lost.

    It holds the configuration space alone: a kernel's specification is its owner's to add. Raises ConstrintError for
    a domain of more than 1,000,000 values.
    """
    parameters = []
    for name, domain in problem.domains.items():
        check_python_name(name, problem.name)
        if size(domain) > MOST_VALUES:
            raise ConstrintError(f"T1 lists every value, and {name!r} has {size(domain):,}; write ConstrINT text")
        values = list(problem.values(name))
        parameters.append({"Name": name, "Type": _type(values), "Values": str(values), "Default": values[0]})
    conditions = [
        {
            "Expression": print_expression(constraint.condition, problem.domains),
            "Parameters": constraint.condition.variables(),
        }
        for constraint in problem.constraints
    ]
    return {
        "General": {"BenchmarkName": problem.name},
        "ConfigurationSpace": {"TuningParameters": parameters, "Conditions": conditions},
    }


def _values(values: object, name: str) -> list[Any] | range:
    """The values of a parameter: a list, or the text of one, "[1, 2]" or "[2**i for i in range(5)]"."""
    given = values
    if isinstance(values, str):
        try:
            values = read_values(values)
        except NoValue as error:
            raise ConstrintError(
                f"the values of {name!r} must be a list of values, or the text of one, not {shown(given)}: {error}"
            ) from None
    if not isinstance(values, list | tuple | range) or (isinstance(values, range) and size(values) > MOST_VALUES):
        raise ConstrintError(f"the values of {name!r} must be a list of values, or the text of one, not {shown(given)}")
    return values if isinstance(values, range) else list(values)


def _typed(values: list[Any] | range, kind: object) -> list[Any] | range:
    """A parameter of Type "bool" may write its values as 0 and 1."""
    if kind == "bool" and all(value in (0, 1) for value in values):
        return [bool(value) for value in values]
    return values


def _type(values: Sequence[Any]) -> str:
    """The Type of a parameter with these values."""
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "string")):
        if all(type(value) is kind for value in values):
            return name
    return "float" if all(type(value) in (int, float) for value in values) else "string"
