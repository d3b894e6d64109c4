"""constrint: a solver for integer constraints, made for tuning spaces. See docs/constrint.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from constrint.errors import ConstrintError, Infeasible, ParseError, TimeLimit
from constrint.expr import Expr
from constrint.global_constraints import all_different, count, cumulative, total
from constrint.model import Problem
from constrint.operators import cdiv, choose, divides, element, implies, isin, maximum, minimum, table
from constrint.result import Result
from constrint.statement import Constraint

if TYPE_CHECKING:
    from constrint.core import has_core
    from constrint.engine import ENGINES
    from constrint.factored import SolutionSet
    from constrint.proposals import Proposals
    from constrint.text import (
        load_space,
        load_t1,
        parse_constrint,
        parse_restriction,
        print_constrint,
        print_space,
        print_t1,
        read_problem,
        write_problem,
    )

_LAZY = {
    "ENGINES": "constrint.engine",
    "Proposals": "constrint.proposals",
    "SolutionSet": "constrint.factored",
    "has_core": "constrint.core",
    "load_space": "constrint.text",
    "load_t1": "constrint.text",
    "parse_constrint": "constrint.text",
    "parse_restriction": "constrint.text",
    "print_constrint": "constrint.text",
    "print_space": "constrint.text",
    "print_t1": "constrint.text",
    "read_problem": "constrint.text",
    "write_problem": "constrint.text",
}

__all__ = [
    "ENGINES",
    "Constraint",
    "ConstrintError",
    "Expr",
    "Infeasible",
    "ParseError",
    "Problem",
    "Proposals",
    "Result",
    "SolutionSet",
    "TimeLimit",
    "all_different",
    "cdiv",
    "choose",
    "count",
    "cumulative",
    "divides",
    "element",
    "has_core",
    "implies",
    "isin",
    "load_space",
    "load_t1",
    "maximum",
    "minimum",
    "parse_constrint",
    "parse_restriction",
    "print_constrint",
    "print_space",
    "print_t1",
    "read_problem",
    "table",
    "total",
    "write_problem",
]


def __getattr__(name: str) -> Any:
    """Load the engines and the text formats when they are first asked for: importing constrint stays cheap."""
    if name == "__version__":
        return _version()
    if name not in _LAZY:
        raise AttributeError(f"module 'constrint' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether they were used already or not."""
    return sorted([*__all__, "__doc__", "__version__"])


def _version() -> str:
    """The version of tilesmith that is installed; "0+checkout" for one that is not."""
    from importlib import metadata

    try:
        return metadata.version("tilesmith")
    except metadata.PackageNotFoundError:
        return "0+checkout"
