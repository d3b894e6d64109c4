"""Tile variables that had other names once: what configurations and stored trials of then mean by them."""

from __future__ import annotations

from collections.abc import Mapping

RENAMES: Mapping[str, Mapping[str, str]] = {}
"""For each schedule the names of configurations up to schema 4, and of stores of schema 1, and today's."""


def renamed(schedule: str, tiling: Mapping[str, int]) -> dict[str, int]:
    """A tiling of then, in its order, by the names of today. Names that were not changed stay."""
    names = RENAMES.get(schedule, {})
    return {names.get(name, name): value for name, value in tiling.items()}
