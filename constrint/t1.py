"""Kernel Tuner's T1 files: a tuning problem in JSON, of which constrint reads and writes the configuration space.

The format is github.com/odgaard/TuningSchema: "ConfigurationSpace" holds "TuningParameters", each with "Name", "Type"
and "Values" (a Python list in a string), and "Conditions", each with "Expression" and the "Parameters" it names.
"KernelSpecification" and the rest describe the kernel; constrint neither needs nor writes them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from constrint.domains import size
from constrint.errors import ConstrintError
from constrint.integers import shown, whole
from constrint.model import Problem
from constrint.python_printing import print_expression
from constrint.python_text import check_python_name, parse_restriction

MOST_VALUES = 1_000_000


def load_t1(document: Mapping[str, Any], name: str = "") -> Problem:
    """The problem of a T1 document. name: what messages call it.

    A parameter of Type "bool" becomes 0 and 1; no other may hold true or false. Raises ConstrintError for a missing or
    wrong entry, and for a parameter whose values are no integers; ParseError for a condition.
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
        problem.variable(entry["Name"], _values(entry["Values"], entry["Name"], entry.get("Type") == "bool"))
    conditions = space.get("Conditions") or []
    if not isinstance(conditions, list):
        raise ConstrintError(f"Conditions in {problem.name} must be a list, not {shown(conditions)}")
    for number, condition in enumerate(conditions, 1):
        text = condition.get("Expression") if isinstance(condition, Mapping) else condition
        if not isinstance(text, str):
            raise ConstrintError(f"condition {number} in {problem.name} needs an Expression, not {shown(condition)}")
        problem.add(parse_restriction(text, problem.domains, f"condition {number}"), text.strip())
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
        parameters.append({"Name": name, "Type": "int", "Values": str(list(domain)), "Default": domain[0]})
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


def _values(values: object, name: str, truth: bool) -> list[int]:
    """The values of a parameter: a list, or one in a string, "[1, 2]", "range(1, 9)" or "list(range(1, 9))".
    truth: whether they may be true and false."""
    if isinstance(values, str):
        try:
            values = _literal(ast.parse(values.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ConstrintError(f"the values of {name!r} must be a list of integers, not {shown(values)}") from None
    if not isinstance(values, list | tuple | range) or (isinstance(values, range) and size(values) > MOST_VALUES):
        raise ConstrintError(f"the values of {name!r} must be a list of integers, not {shown(values)}")
    found = []
    for value in values:
        number = whole(value, truth)
        if number is None:
            raise ConstrintError(
                f"{name!r} may be {shown(value)}, which is no integer; number its values and let the integers stand "
                "for them"
            )
        found.append(number)
    return found


def _literal(node: ast.expr) -> object:
    """The value of a literal, ``range(...)`` or ``list(...)``; nothing is evaluated."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        args = [_literal(arg) for arg in node.args]
        if node.func.id == "list" and len(args) == 1 and isinstance(args[0], list | tuple | range):
            return args[0]
        if node.func.id == "range" and 0 < len(args) < 4 and all(isinstance(arg, int) for arg in args):
            return range(*(arg for arg in args if isinstance(arg, int)))
        raise ValueError
    return ast.literal_eval(node)
