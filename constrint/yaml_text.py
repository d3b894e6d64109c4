"""YAML, read with a bound on what its aliases may multiply out to."""

from __future__ import annotations

from typing import Any

from constrint.errors import ConstrintError, ParseError

MOST_NODES = 10_000_000
"""Values that a document may hold, those behind an alias counted as often as it stands."""


def load_yaml(text: str, name: str) -> Any:
    """The one document of a YAML text, of plain values alone. name: what messages call it.

    Raises ParseError with line and column for what is no YAML, ConstrintError for a document that its aliases make
    endless or larger than MOST_NODES values.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_NODES:
            raise ConstrintError(
                f"{name} is YAML whose aliases multiply out to more than {MOST_NODES:,} values; write them out"
            )
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise ConstrintError(f"{name} is not YAML: {error}") from None
        source = (text.split("\n")[mark.line : mark.line + 1] or [""])[0]
        reason = f"not YAML: {error.problem or error.context}"
        raise ParseError(reason, source, mark.line + 1, mark.column + 1, name) from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise ConstrintError(f"{name} is not YAML: {error}") from None
    finally:
        loader.dispose()


def _count(node: Any, known: dict[int, int]) -> int:
    """How many values a node holds, written out. Raises ValueError for a node that holds itself."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise ValueError("an alias stands within what it names")
        return known[id(node)]
    if not isinstance(node.value, list):
        return 1
    known[id(node)] = -1
    parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
    known[id(node)] = total = 1 + sum(_count(part, known) for part in parts)
    return total
