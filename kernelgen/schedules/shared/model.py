"""What a schedule's models have learnt, from the file model.yaml in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

from constrint.documents import load_yaml
from kernelgen.errors import TilesmithError
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.task import Direction
from kernelgen.schedules.shared.cost import Weights
from kernelgen.schedules.shared.registers import RegisterModel


class _Pass(BaseModel):
    """The part of a file for one direction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clocks: Weights
    floats: Weights | None = None
    registers: Mapping[str, Mapping[str, int]]
    registers_of: Mapping[str, Mapping[str, Mapping[str, int]]] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    forward: _Pass | None = None
    backward: _Pass | None = None


@dataclass(frozen=True)
class Model:
    """clocks: how much of each phase of a step is exposed; floats: the same of dtypes of more than 16 bits. registers:
    of a thread, from what must live in them; other_registers: of dtypes that have coefficients of their own."""

    clocks: Weights
    registers: RegisterModel
    floats: Weights
    other_registers: Mapping[str, RegisterModel]

    def weights(self, dtype: str) -> Weights:
        """How much of each phase is exposed for a dtype."""
        return self.clocks if dtype_info(dtype).itemsize == 2 else self.floats

    def registers_of(self, dtype: str) -> RegisterModel:
        """The registers of a thread for a dtype."""
        return self.other_registers.get(dtype, self.registers)


@lru_cache(maxsize=64)
def load_model(package: str, direction: Direction) -> Model:
    """The model of a pass of the schedule whose package is given, such as "kernelgen.schedules.resident".

    Raises TilesmithError for a file that is missing, or not as it should be.
    """
    place = resources.files(package) / "model.yaml"
    try:
        file = _File.model_validate(load_yaml(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TilesmithError(f"{place} cannot be read as a schedule's model: {error}") from error
    found = file.forward if direction == "forward" else file.backward
    if found is None:
        raise TilesmithError(f"{place} has no {direction} part")
    others = {dtype: RegisterModel(coefficients) for dtype, coefficients in found.registers_of.items()}
    return Model(found.clocks, RegisterModel(found.registers), found.floats or found.clocks, others)
