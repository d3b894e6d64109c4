"""Documents from files that may hold anything: read up to a bound, and YAML whose aliases cannot blow up."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

MOST_REPEATED = 10_000
"""Nodes that the aliases of a YAML document may stand for, all together: nine aliases of nine of nine stand for more
than a memory holds."""


class TooLarge(ValueError):
    """A file, a pipe or a device that holds more than was asked for."""


def read_bounded(path: str | Path, most: int) -> bytes:
    """All of a file, a pipe or a device of at most ``most`` bytes. Raises OSError, and TooLarge for one with more.

    Never more than ``most`` + 1 bytes are read, whatever the file system says of its size.
    """
    with Path(path).open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise TooLarge(f"it has more than {most:,} bytes")
    return data


def read_text(path: str | Path, most: int, encoding: str = "utf-8") -> str:
    """The text of a file of at most ``most`` bytes, every line ending in a newline. Raises as read_bounded, and
    UnicodeDecodeError."""
    return io.StringIO(read_bounded(path, most).decode(encoding), newline=None).read()


def load_yaml(text: str) -> Any:
    """A YAML document as plain Python values. Raises yaml.YAMLError, ValueError and RecursionError, as its loader does.

    Of a document whose aliases stand for more than MOST_REPEATED nodes, nothing is built: a ComposerError.
    """
    loader, node = compose_yaml(text)
    return None if node is None else loader.construct_document(node)


def compose_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The loader of a YAML document and the node at its top, None for an empty one. Raises as load_yaml."""
    import yaml

    # libyaml's parser where PyYAML was built with it: ten times faster, the same documents, and a bound on nesting.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    node = loader.get_single_node()
    if node is not None:
        _check_aliases(node)
    return loader, node


def _check_aliases(top: yaml.Node) -> None:
    """Raise ComposerError where aliases stand for more than MOST_REPEATED nodes, or a node for one that holds it."""
    import yaml

    repeated = 0
    seen: set[int] = set()
    open_nodes: set[int] = set()

    def parts(node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.MappingNode):
            return [part for pair in node.value for part in pair]
        return node.value if isinstance(node, yaml.SequenceNode) else []

    def refuse(node: yaml.Node, what: str) -> yaml.YAMLError:
        return yaml.composer.ComposerError(None, None, what, node.start_mark)

    @cache
    def size(node: yaml.Node) -> int:
        """Nodes that a node stands for, itself included."""
        if id(node) in open_nodes:
            raise refuse(node, "what this anchor names holds itself")
        open_nodes.add(id(node))
        total = 1 + sum(size(part) for part in parts(node))
        open_nodes.discard(id(node))
        return total

    size(top)
    waiting = [top]
    while waiting:
        for part in parts(waiting.pop()):
            if id(part) in seen:
                repeated += size(part)
                if repeated > MOST_REPEATED:
                    raise refuse(part, f"the aliases of this document stand for more than {MOST_REPEATED:,} values")
                continue
            seen.add(id(part))
            waiting.append(part)
