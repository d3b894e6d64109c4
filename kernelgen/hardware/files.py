"""The YAML form of a GPU profile: its records, and reading them with errors that name file, line and field.

docs/profiles.md describes the form; kernelgen.hardware.profile makes a Profile of what is read here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, ValidationError, model_validator

from constrint.documents import compose_yaml, read_text
from kernelgen.errors import ProfileError, near_names

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LATENCIES: Mapping[str, tuple[str, ...]] = {
    "shared_load": (),
    "barrier": ("threads",),
    "mma": (),
    "mma_interval": (),
    "special_function": (),
    "global_load": (),
    "exchange_messages": ("cluster", "gathered_bytes"),
    "exchange_sums": ("cluster", "received_bytes"),
    "exchange_grid": ("blocks",),
    "grid_barrier_atomic": ("blocks",),
}
"""Every latency a profile may hold, in clocks of the multiprocessor, and what it depends on.

shared_load: a dependent load from shared memory. barrier: __syncthreads. mma: m16n8k16 with float32 accumulators,
each waiting for the one before. mma_interval: between two independent m16n8k16 (or as much work in smaller ones) on
one sub-partition of a multiprocessor. special_function: tanh.approx or ex2.approx. global_load: device memory, in a
busy kernel. exchange_messages: one all-to-all exchange between the blocks of a cluster, plain remote stores that the
receiver polls for, by the bytes that each block has in the end, read by as many warps as makes it fastest; sums: the
same where each block adds up what it receives from all and its threads then meet, by the bytes that each receives;
grid: blocks all over the GPU, stores to global memory that the receivers poll for in L2. grid_barrier_atomic: all
blocks of a grid meet by one atomic counter in L2, which one thread of each polls. docs/probe.md: how each is measured.
"""

Clocks = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_ByOne = Annotated[dict[PositiveInt, Clocks], Field(min_length=1)]
_ByTwo = Annotated[dict[PositiveInt, _ByOne], Field(min_length=1)]
Table = Clocks | _ByOne | _ByTwo
"""A latency in clocks, or clocks by one or two of the axes that LATENCIES names."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Arch = Annotated[str, StringConstraints(pattern=r"^(sm_\d{2,3}[af]?|gfx[0-9a-f]{3,4})$")]


class Record(BaseModel):
    """Base of everything read from a profile: frozen, no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sourced(Record):
    """Something with where it comes from: a key of the file's sources, or the source itself."""

    source: Text


class Number(Sourced):
    """A count, a size or a rate."""

    value: Annotated[int, Field(ge=0)]


class Latency(Sourced):
    """Clocks."""

    value: Table


class ClusterCounts(Sourced):
    """How many clusters of each size run at a time with all shared memory taken."""

    value: dict[PositiveInt, PositiveInt]


class ProfileFile(Record):
    """One GPU's file: only what is known of this GPU; the architecture's section supplies the rest."""

    name: Text
    title: Text
    aliases: list[Text] = []
    devices: list[Text] = []
    arch: Arch
    sources: dict[Text, Text] = {}
    numbers: dict[Text, Number] = {}
    clusters_that_fit: ClusterCounts | None = None
    latencies: dict[Text, Latency] = {}


class Architecture(Record):
    """What all GPUs of one compute capability share. closest: the architecture whose latencies stand in."""

    title: Text
    closest: Arch | None = None
    matrix_instructions: dict[Text, list[Text]]
    features: list[Text]
    numbers: dict[Text, Number]
    latencies: dict[Text, Latency] = {}


class ArchitectureFile(Record):
    """profiles/architectures.yaml. common: what every supported architecture shares."""

    sources: dict[Text, Text]
    common: dict[Text, Number]
    architectures: dict[Arch, Architecture]

    @model_validator(mode="after")
    def _closest_exists(self) -> ArchitectureFile:
        for name, architecture in self.architectures.items():
            if architecture.closest is not None and architecture.closest not in self.architectures:
                raise ValueError(f"{name} is closest to {architecture.closest}, which has no section")
        return self


def default_latency(shared: ArchitectureFile, section: str, name: str) -> tuple[Table, str] | None:
    """The architecture's default, or that of the closest architecture that has one; with its source."""
    place: str | None = section
    visited: list[str] = []
    while place is not None and place not in visited:
        visited.append(place)
        architecture: Architecture = shared.architectures[place]
        if name in architecture.latencies:
            found = architecture.latencies[name]
            note = f"assumed: default of {place}" + (f", which stands in for {section}" if place != section else "")
            return found.value, f"{note} ({shared.sources.get(found.source, found.source)})"
        place = architecture.closest
    return None


MOST_BYTES = 1 << 20
"""Larger files are refused: a profile has a few thousand bytes."""

Form = TypeVar("Form", bound=Record)
Place = tuple[Hashable, ...]
"""Where a field stands: the keys from the top of the document down to it."""


def read(path: Path, form: type[Form], fields: Sequence[str]) -> Form:
    """Read a file of the given form; ``fields`` are the names that its ``numbers`` may have.

    Raises ProfileError with the line and the field that are wrong, or the reason why the file cannot be read.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no UTF-8 text"
        raise ProfileError(f"cannot read the GPU profile {path}: {reason}") from error
    try:
        loader, node = compose_yaml(text)
        if not isinstance(node, yaml.MappingNode):
            raise ProfileError(f"{path} is no GPU profile (docs/profiles.md describes the form)")
        lines = _lines(node, path)
        record = form.model_validate(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ProfileError(f"{path}{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(path, lines, tuple(first["loc"]), in_words(first)) from error
    except (ValueError, TypeError, RecursionError) as error:  # a date or a number that is none, a list for a key
        raise ProfileError(f"{path}: not YAML: {error}") from error
    for place, known in _names(record, fields):
        if place[-1] not in known:
            raise _wrong(path, lines, place, f"unknown name; {near_names(str(place[-1]), known)}")
    return record


MISSING = "is missing"


def in_words(problem: ErrorDetails) -> str:
    """What is wrong with a field, and what it should be."""
    kind, given = problem["type"], problem["input"]
    if kind == "missing":
        return MISSING
    if kind == "extra_forbidden":
        return "is no field of this form"
    if kind == "model_type":
        return f"should be {{value: ..., source: ...}}, not {given!r}"
    if kind == "string_pattern_mismatch":
        return f"should be a compile target, such as sm_90a or gfx942, not {given!r}"
    shown = f", not {given!r}" if isinstance(given, str | int | float) else ""
    return problem["msg"].removeprefix("Input ") + shown


def _names(record: Record, fields: Sequence[str]) -> list[tuple[Place, Sequence[str]]]:
    """The place of every freely written name, with the names it may be."""
    places: list[tuple[Place, Sequence[str]]] = []
    if isinstance(record, ArchitectureFile):
        places += [(("common", name), fields) for name in record.common]
        for arch, section in record.architectures.items():
            places += [(("architectures", arch, *place), known) for place, known in _names(section, fields)]
    elif isinstance(record, ProfileFile | Architecture):
        places += [(("numbers", name), fields) for name in record.numbers]
        places += [(("latencies", name), tuple(LATENCIES)) for name in record.latencies]
    return places


def _lines(node: yaml.Node | None, path: Path) -> dict[Place, int]:
    """The line (from 1) of every field of a document; a key written twice is an error."""
    lines: dict[Place, int] = {}
    seen: set[int] = set()

    def walk(node: yaml.Node | None, place: Place) -> None:
        if id(node) in seen:  # a YAML alias, possibly to a node that holds it
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, str(key.value))
                line = key.start_mark.line + 1
                if inner in lines:
                    raise ProfileError(f"{path}, line {line}: {_field(inner)} is already on line {lines[inner]}")
                lines[inner] = line
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*place, str(index))] = value.start_mark.line + 1
                walk(value, (*place, str(index)))

    walk(node, ())
    return lines


def _wrong(path: Path, lines: Mapping[Place, int], place: Place, what: str) -> ProfileError:
    """The error for a field: pydantic's place ends in its own notes, so the longest known part gives the line."""
    known = tuple(str(part) for part in place)
    missing = what == MISSING
    while known and known not in lines:
        known = known[:-1]
    line = f", line {lines[known]}" if known else ""
    field = _field(place if missing else known or place)
    return ProfileError(f"{path}{line}: {field + ': ' if field else ''}{what} (docs/profiles.md describes the form)")


def _field(place: Sequence[Hashable]) -> str:
    return ".".join(map(str, place))
