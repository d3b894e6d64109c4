"""Names that were others once: what configurations up to schema 4, and stores of schema 1, mean by them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LAST_SCHEMA = 4
"""The last schema of configurations in which old names may stand."""

TILE_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "resident": {
        "register_groups": "k_tiles_in_registers",
        "chains": "accumulators",
        "prefetch": "num_stages",
    },
    "resident_backward": {
        "register_groups": "k_tiles_in_registers",
        "chains": "accumulators",
        "prefetch": "num_stages",
        "gate_groups": "recompute_k_tiles_in_registers",
    },
}
"""Of each schedule, the tile variables' names of then and of today."""


def renamed(schedule: object, tiling: Mapping[str, int]) -> dict[str, int]:
    """A tiling of then, in its order, by the names of today.

    Other names stay, and so does an old one beside which today's stands: that is no tiling, and is for others to say.
    """
    names = TILE_VARIABLES.get(schedule, {}) if isinstance(schedule, str) else {}
    today = {old: new for old, new in names.items() if new not in tiling}
    return {today.get(name, name): value for name, value in tiling.items()}


def with_names_of_today(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration of schema LAST_SCHEMA or older as they were read, checked by nobody yet."""
    tiling = fields.get("tiling")
    if not isinstance(tiling, dict):
        return dict(fields)
    return {**fields, "tiling": renamed(fields.get("schedule"), tiling)}


def source_of_today(text: str) -> str:
    """The source beside a configuration by the names of today's headers; one that has them already, unchanged.

    Backward kernels of then are not read any more.
    """
    names = {f".{old} =": f".{new} =" for old, new in TILE_VARIABLES["resident"].items()}

    def tiling(line: re.Match[str]) -> str:
        return re.sub(r"\.\w+ =", lambda member: names.get(member[0], member[0]), line[0])

    return re.sub(r"^constexpr ResidentTiling tiling\{.*$", tiling, text, flags=re.MULTILINE)
