"""Configurations of older schemas, in today's fields; or why they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kernelgen.errors import ConfigError

Fields = dict[str, Any]
"""A configuration as the YAML says it, not checked yet."""

CALLS = 5
"""The version since which a configuration says its calls one by one, with rules for their launches."""

FIRST = 1
"""The oldest version that is read."""

_WRITES = ["states", "others", "last", "gates"]
"""What a forward kernel of an older version writes."""


def upgraded(fields: Fields, version: int, path: Path) -> Fields:
    """Fields of an older ``version`` as those of version CALLS.

    Raises ConfigError for kernels for training: before version 4 they had other arguments, and before version 5 a
    backward one made no gradients of R and b.
    """
    direction = fields.get("direction", "forward") if version == FIRST else fields.get("direction")
    shape = fields.get("shape")
    saves = shape.get("save") if isinstance(shape, dict) else None
    if direction == "backward":
        raise ConfigError(
            f"{path} has schema version {version}: a backward kernel of before version {CALLS} does not make the "
            "gradients of R and b. Tune it again with this tilesmith."
        )
    if version < 4 and saves == "gates":
        raise ConfigError(
            f"{path} has schema version {version}: before version 4 kernels that save gates for training had other "
            "arguments. Tune it again with this tilesmith."
        )
    renamed = {"files", "launch", "entry", "arguments", "reported"}
    call = {
        "files": fields.get("files"),
        "source_hash": fields.get("source_hash"),
        "entry": fields.get("entry"),
        "arguments": fields.get("arguments"),
        "writes": _WRITES,
        "launch": _rule(fields),
        "reported": fields.get("reported"),
    }
    new = {name: value for name, value in fields.items() if name not in renamed}
    return new | {
        "schema_version": CALLS,
        "direction": direction,
        "calls": [{name: value for name, value in call.items() if value is not None}],
        "axes": {},
        "num_stages": _tile(fields, "num_stages"),
    }


def _rule(fields: Fields) -> Any:
    """The launch at the tuned shape as a rule: kernels of older versions have a block for each head and tile of the
    batch."""
    launch = fields.get("launch")
    if not isinstance(launch, dict):
        return launch
    return launch | {"grid": ["heads", f"cdiv(batch, {_tile(fields, 'batch_tile')})", "1"]}


def _tile(fields: Fields, name: str) -> int:
    """A tile variable, at least 1 (whether it is there at all, the schedule's Problem says)."""
    tiling = fields.get("tiling")
    value = tiling.get(name) if isinstance(tiling, dict) else None
    return value if type(value) is int and value > 0 else 1
