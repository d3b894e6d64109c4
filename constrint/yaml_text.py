"""YAML, with errors in words; documents.py bounds what its aliases may stand for."""

from __future__ import annotations

from typing import Any

from constrint import documents
from constrint.errors import ConstrintError, ParseError


def load_yaml(text: str, name: str) -> Any:
    """The one document of a YAML text, of plain values alone. name: what messages call it.

    Raises ParseError with line and column for what is no YAML, or YAML whose aliases stand for too much or for
    themselves; ConstrintError where there is no place to name.
    """
    import yaml

    try:
        return documents.load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise ConstrintError(f"{name} is not YAML: {error}") from None
        source = (text.split("\n")[mark.line : mark.line + 1] or [""])[0]
        reason = f"not YAML: {error.problem or error.context}"
        raise ParseError(reason, source, mark.line + 1, mark.column + 1, name) from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise ConstrintError(f"{name} is not YAML: {error}") from None
