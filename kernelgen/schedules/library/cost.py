"""What a step of the library schedule takes: the product, from its bytes and its operations; the kernel beside it, from
its bytes; and two launches."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

from constrint.documents import load_yaml
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.schedules.shared.library_product import (
    LEAST_DEPTH,
    flops_per_clock,
    launch_clocks,
    memory_bytes_per_clock,
    traffic_clocks,
)

TILE = 128
"""Rows and columns of a block's part of a product, at most: the library has blocks of other forms too, but none that
would keep more of the GPU busy and be as fast."""

LEAST_COLUMNS = 16


class Rates(BaseModel):
    """The fields of model.yaml, which says what they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pointwise: float


@lru_cache(maxsize=1)
def load_rates() -> Rates:
    """Raises TilesmithError for a file that is missing, or not as it should be."""
    place = resources.files(__package__) / "model.yaml"
    try:
        return Rates.model_validate(load_yaml(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TilesmithError(f"{place} cannot be read as the library schedule's model: {error}") from error


def product_clocks(rows: int, columns: int, depth: int, copies: int, dtype: str, profile: Profile) -> float:
    """Clocks of a product of [rows, depth] and [depth, columns], ``copies`` of them at once, with its launch."""
    tile_columns = min(TILE, max(LEAST_COLUMNS, columns))
    tiles = copies * -(-rows // TILE) * -(-columns // tile_columns)
    parts = max(1, min(profile.multiprocessors // tiles, depth // LEAST_DEPTH))  # of K, where blocks are few
    rounds = -(-tiles * parts // profile.multiprocessors) / parts
    work = rounds * 2.0 * TILE * tile_columns * depth / flops_per_clock(dtype, profile)
    matrix = copies * rows * depth * dtype_info(dtype).itemsize
    return launch_clocks(profile) + max(traffic_clocks(matrix, profile), work)


def pointwise_clocks(bytes_: float, profile: Profile) -> float:
    """Clocks of a kernel that moves so many bytes, with its launch."""
    return launch_clocks(profile) + bytes_ / (load_rates().pointwise * memory_bytes_per_clock(profile))
