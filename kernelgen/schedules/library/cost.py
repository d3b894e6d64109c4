"""What a step of the library schedule takes: the product, from its bytes and its operations; the kernel beside it, from
its bytes; and two launches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

from constrint.documents import load_yaml
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import SIXTEEN_BITS

TILE = 128
"""Rows and columns of a block's part of a product, at most: the library has blocks of other forms too, but none that
would keep more of the GPU busy and be as fast."""

LEAST_COLUMNS = 16

LEAST_DEPTH = 512
"""Of a part of K, where blocks share one."""

SUB_PARTITIONS, MMA_FLOPS = 4, 2 * 16 * 8 * 16
"""Of a multiprocessor; of an m16n8k16."""


class Rates(BaseModel):
    """The fields of model.yaml, which says what they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    launch_us: float
    memory: float
    pointwise: float
    l2_bytes_per_clock: float
    l2_kept: float
    matrix: float
    tf32: float
    flops_per_clock: Mapping[str, float]


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
    rates, itemsize = load_rates(), dtype_info(dtype).itemsize
    matrix = copies * rows * depth * itemsize
    stays = matrix <= rates.l2_kept * (profile.l2_bytes or 0)
    per_clock = rates.l2_bytes_per_clock if stays else rates.memory * _memory_bytes_per_clock(profile)
    tile_columns = min(TILE, max(LEAST_COLUMNS, columns))
    tiles = copies * -(-rows // TILE) * -(-columns // tile_columns)
    parts = max(1, min(profile.multiprocessors // tiles, depth // LEAST_DEPTH))  # of K, where blocks are few
    rounds = -(-tiles * parts // profile.multiprocessors) / parts
    work = rounds * 2.0 * TILE * tile_columns * depth / _flops_per_clock(dtype, profile)
    return _launch(profile) + max(matrix / per_clock, work)


def pointwise_clocks(bytes_: float, profile: Profile) -> float:
    """Clocks of a kernel that moves so many bytes, with its launch."""
    return _launch(profile) + bytes_ / (load_rates().pointwise * _memory_bytes_per_clock(profile))


def _launch(profile: Profile) -> float:
    return load_rates().launch_us * profile.clock_mhz


def _memory_bytes_per_clock(profile: Profile) -> float:
    return profile.memory_bandwidth / (1e6 * profile.clock_mhz)


def _flops_per_clock(dtype: str, profile: Profile) -> float:
    """Of a multiprocessor."""
    rates = load_rates()
    if dtype in rates.flops_per_clock:
        return rates.flops_per_clock[dtype]
    of_tensor_cores = rates.matrix * SUB_PARTITIONS * MMA_FLOPS / profile.latency("mma_interval")
    return of_tensor_cores * (1.0 if dtype in SIXTEEN_BITS else rates.tf32)
