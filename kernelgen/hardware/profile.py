"""Profile: one GPU's limits, matrix instructions and latencies, read from profiles/*.yaml.

Importing this module costs pydantic and PyYAML (about 0.2 s); the command line imports it only where a GPU is named.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, ValidationError, model_validator

from kernelgen import paths
from kernelgen.errors import ProfileError, near_names
from kernelgen.hardware.files import (
    LATENCIES,
    ArchitectureFile,
    Number,
    ProfileFile,
    Record,
    Table,
    default_latency,
    in_words,
    read,
)

WARP = 32
"""Threads of a warp, on every NVIDIA GPU (CUDA C++ Programming Guide, compute capabilities)."""


class Profile(Record):
    """One GPU. Sizes in bytes, times in clocks of the multiprocessor. Made by load_profile and its siblings.

    name, title, aliases: what it is called. devices: the names CUDA reports for it.
    arch: the compile target with its suffix, such as "sm_90a", or AMD's, such as "gfx942". compute_capability: (major,
    minor). What is counted in warps is so in 32 threads, where a wave of AMD's has 64.
    multiprocessors, clock_mhz (boost), memory_bytes, memory_bandwidth (bytes per second).
    l2_bytes: of L2 cache, None where it is not known.
    registers_per_sm, registers_per_thread: 32-bit registers. register_allocation_unit: the step in which a warp's
    registers are allocated. warp_allocation_granularity: the step in which warps are (one per sub-partition).
    shared_memory_per_sm. shared_memory_per_block: the opt-in maximum a kernel may ask for.
    shared_memory_reserved: what the driver adds to each block. shared_memory_allocation_unit.
    threads_per_block, threads_per_sm, warps_per_sm, blocks_per_sm: the most that fit.
    largest_cluster: in blocks, 1 without clusters. portable_cluster: the most without a special attribute.
    clusters_that_fit: how many clusters of each size run at a time when each block takes all the shared memory it
    may; empty where nobody has measured it.
    special_function_lanes: special-function results per clock and multiprocessor.
    matrix_instructions: dtypes by shape of mma.sync with float32 accumulators, such as
    {"m16n8k16": ("bfloat16", "float16")}. features: other instructions, listed in profiles/architectures.yaml.
    latencies: clocks by the names of LATENCIES; ask with latency().
    sources: where each number and latency comes from. assumed: the latencies that are not this GPU's own but its
    architecture's defaults (or the closest architecture's).
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    arch: str
    compute_capability: tuple[int, int]
    multiprocessors: PositiveInt
    clock_mhz: PositiveInt
    memory_bytes: PositiveInt
    memory_bandwidth: PositiveInt
    l2_bytes: PositiveInt | None = None
    registers_per_sm: PositiveInt
    registers_per_thread: PositiveInt
    register_allocation_unit: PositiveInt
    warp_allocation_granularity: PositiveInt
    shared_memory_per_sm: PositiveInt
    shared_memory_per_block: PositiveInt
    shared_memory_reserved: Annotated[int, Field(ge=0)]
    shared_memory_allocation_unit: PositiveInt
    threads_per_block: PositiveInt
    threads_per_sm: PositiveInt
    warps_per_sm: PositiveInt
    blocks_per_sm: PositiveInt
    largest_cluster: PositiveInt
    portable_cluster: PositiveInt
    special_function_lanes: PositiveInt
    clusters_that_fit: Mapping[int, int]
    matrix_instructions: Mapping[str, tuple[str, ...]]
    features: frozenset[str]
    latencies: Mapping[str, Table]
    sources: Mapping[str, str]
    assumed: tuple[str, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        block = self.shared_memory_per_block + self.shared_memory_reserved
        if block > self.shared_memory_per_sm:
            raise ValueError(f"a block's shared memory ({block} with the driver's part) exceeds the multiprocessor's")
        if self.warps_per_sm * WARP != self.threads_per_sm:
            raise ValueError(f"{self.warps_per_sm} warps are not {self.threads_per_sm} threads per multiprocessor")
        for name, table in self.latencies.items():
            axes = LATENCIES[name]
            if _depths(table) != {len(axes)}:
                raise ValueError(f"latency {name} must be clocks{''.join(f' by {axis}' for axis in axes)}")
        return self

    def latency(self, name: str, *at: float) -> float:
        """Clocks of the latency ``name`` (see LATENCIES) at its coordinates, e.g. ``latency("barrier", 256)``.

        Between known points it interpolates linearly; below the first it takes the first; above the last it extends
        the line through the last two. Raises ProfileError for an unknown name, for one that this GPU and its
        architecture have no value for, and for the wrong number of coordinates.
        """
        if not at and isinstance(found := self.latencies.get(name), float):  # what the model asks thousands of times
            return found
        if name not in LATENCIES:
            raise ProfileError(f"unknown latency {name!r}; {near_names(name, LATENCIES)}")
        axes = LATENCIES[name]
        if len(at) != len(axes):
            raise ProfileError(f"latency {name!r} takes {len(axes)} coordinates ({', '.join(axes)}), not {len(at)}")
        if name not in self.latencies:
            no_clusters = self.largest_cluster == 1 and "cluster" in axes
            why = "it has no clusters" if no_clusters else "nobody has measured it; put it into a profile of your own"
            raise ProfileError(f"{self.name} has no latency {name!r}: {why}")
        return _interpolate(self.latencies[name], at)

    def registers_allocated(self, registers: int) -> int:
        """Registers a warp takes from the register file when each thread uses ``registers`` of them."""
        return _round_up(registers * WARP, self.register_allocation_unit)

    def occupancy(self, threads: int, registers: int, shared_memory: int) -> int:
        """Blocks that one multiprocessor runs at a time; 0 where the block exceeds a limit.

        threads: per block. registers: per thread. shared_memory: bytes per block, static and dynamic, without the
        driver's part. The rules are those of NVIDIA's occupancy calculator: registers are allocated per warp, in
        units, from one file per sub-partition; shared memory per block, in units, the driver's part included.
        Raises ValueError for less than 1 thread or negative amounts.
        """
        if threads < 1 or registers < 0 or shared_memory < 0:
            raise ValueError(f"no block has {threads} threads, {registers} registers, {shared_memory} bytes")
        if (
            threads > self.threads_per_block
            or registers > self.registers_per_thread
            or shared_memory > self.shared_memory_per_block
        ):
            return 0
        warps = -(-threads // WARP)
        fits = [self.blocks_per_sm, self.warps_per_sm // warps]
        if registers:
            resident = self.registers_per_sm // self.registers_allocated(registers)
            fits.append(resident // self.warp_allocation_granularity * self.warp_allocation_granularity // warps)
        taken = _round_up(shared_memory + self.shared_memory_reserved, self.shared_memory_allocation_unit)
        if taken:
            fits.append(self.shared_memory_per_sm // taken)
        return min(fits)

    def supports(self, matrix_instruction: str, dtype: str) -> bool:
        """Whether this GPU has the mma.sync shape, such as "m16n8k16", for a dtype with float32 accumulators."""
        return dtype in self.matrix_instructions.get(matrix_instruction, ())


_NUMBERS = tuple(name for name, field in Profile.model_fields.items() if field.annotation in (int, PositiveInt | None))
"""What a profile file may give under ``numbers``."""


def profile_names() -> list[str]:
    """The names of the profiles that come with tilesmith, sorted."""
    return sorted(path.stem for path in paths.profiles().glob("*.yaml") if path.stem != "architectures")


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a GPU's profile by name, alias or CUDA device name, or from a file of one's own by its path.

    Raises ProfileError for an unknown name (with the near ones) and for a file that cannot be read (with the line
    and the field).
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.lower().endswith((".yaml", ".yml")):
        return _load(Path(text))
    wanted = _normalised(text)
    if wanted in profile_names():
        return _shipped(wanted)
    every = [_shipped(name) for name in profile_names()]
    for profile in every:
        if wanted in map(_normalised, (*profile.aliases, *profile.devices)):
            return profile
    known = [name for profile in every for name in (profile.name, *profile.aliases)]
    raise ProfileError(f"unknown GPU {text!r}; {near_names(text, known)} (or give the path of a profile file)")


def share_of(profile: Profile, programs: int) -> Profile:
    """What a program finds of a GPU while as many run on it, all of them alike: some multiprocessors of its own.

    Its name says so: what was tuned or measured with the whole GPU is not for it. Raises ProfileError where there is no
    multiprocessor for each.
    """
    if programs == 1:
        return profile
    if programs > profile.multiprocessors:
        raise ProfileError(f"{programs} programs cannot share {profile.multiprocessors} multiprocessors")
    own = {
        "name": f"{profile.name}, one of {programs} programs",
        "multiprocessors": profile.multiprocessors // programs,
        "clusters_that_fit": {size: count // programs for size, count in profile.clusters_that_fit.items()},
        "sources": {**profile.sources, "multiprocessors": f"a part of {profile.multiprocessors}"},
    }
    return profile.model_copy(update=own)


def profile_file(profile: Profile) -> ProfileFile:
    """What the file of a GPU's profile holds: the one that comes with tilesmith, else its numbers in a new one.

    A new one has those that a GPU's file gives as a rule, and no latencies: they are its architecture's.
    """
    if profile.name in profile_names():
        return read(paths.profiles() / f"{profile.name}.yaml", ProfileFile, _NUMBERS)
    own = ("multiprocessors", "clock_mhz", "memory_bytes", "memory_bandwidth", "l2_bytes")
    values = {name: getattr(profile, name) for name in own}
    numbers = {name: Number(value=value, source=profile.sources[name]) for name, value in values.items() if value}
    return ProfileFile(
        name=profile.name, title=profile.title, devices=list(profile.devices), arch=profile.arch, numbers=numbers
    )


def match_device(
    device: str,
    compute_capability: tuple[int, int],
    multiprocessors: int,
    attributes: Mapping[str, int] | None = None,
) -> Profile:
    """The profile of a running GPU. ``device`` is the name CUDA reports for it.

    A profile matches when it lists that name and the compute capability agrees; a GPU with another number of
    multiprocessors (part of one, say) gets that profile with its own number. Where none matches, the device's
    ``attributes`` (see profile_from_device) make one; without them ProfileError is raised.
    """
    for profile in map(_shipped, profile_names()):
        named = _normalised(device) in map(_normalised, profile.devices)
        if not named or profile.compute_capability != compute_capability:
            continue
        if profile.multiprocessors == multiprocessors:
            return profile
        own = {
            "multiprocessors": multiprocessors,
            "clusters_that_fit": {},
            "sources": {**profile.sources, "multiprocessors": "reported by the device"},
        }
        return profile.model_copy(update=own)
    if attributes is None:
        capability = ".".join(map(str, compute_capability))
        raise ProfileError(
            f"no profile for {device!r} (compute capability {capability}, {multiprocessors} multiprocessors); "
            "write one (docs/profiles.md) and give its path"
        )
    return profile_from_device(attributes, device)


_FROM_ATTRIBUTES = {
    "multiprocessors": "multiprocessor_count",
    "l2_bytes": "l2_cache_size",
    "registers_per_sm": "max_registers_per_multiprocessor",
    "shared_memory_per_sm": "max_shared_memory_per_multiprocessor",
    "shared_memory_per_block": "max_shared_memory_per_block_optin",
    "shared_memory_reserved": "reserved_shared_memory_per_block",
    "threads_per_block": "max_threads_per_block",
    "threads_per_sm": "max_threads_per_multiprocessor",
    "blocks_per_sm": "max_blocks_per_multiprocessor",
    "memory_bytes": "total_memory",
}

DEVICE_ATTRIBUTES = frozenset(_FROM_ATTRIBUTES.values()) - {"total_memory"} | {
    "compute_capability_major",
    "compute_capability_minor",
    "clock_rate",
    "memory_clock_rate",
    "global_memory_bus_width",
}
"""The device attributes that profile_from_device reads, by their lower-case names in the driver."""


def numbers_of_device(attributes: Mapping[str, int]) -> dict[str, int]:
    """The numbers of a profile that are attributes of a device (see profile_from_device); those that it reports."""
    values = {field: attributes[key] for field, key in _FROM_ATTRIBUTES.items() if key in attributes}
    return values | {"clock_mhz": attributes.get("clock_rate", 0) // 1000}


def profile_from_device(attributes: Mapping[str, int], name: str) -> Profile:
    """Make a profile from what CUDA reports of a device; its latencies are its architecture's defaults.

    attributes: by the names of cuda.core's DeviceProperties: compute_capability_major and _minor,
    multiprocessor_count, clock_rate and memory_clock_rate (kHz), global_memory_bus_width (bits), l2_cache_size,
    max_registers_per_multiprocessor, max_shared_memory_per_multiprocessor, max_shared_memory_per_block_optin,
    reserved_shared_memory_per_block, max_threads_per_block, max_threads_per_multiprocessor,
    max_blocks_per_multiprocessor; and total_memory (bytes). Pure: nothing is asked of a GPU.
    Raises ProfileError where one is missing or zero, or the GPU is older than compute capability 7.5.
    """
    may_be_zero = {"reserved_shared_memory_per_block", "compute_capability_minor"}
    missing = {key for key in (DEVICE_ATTRIBUTES | {"total_memory"}) - may_be_zero if attributes.get(key, 0) <= 0}
    missing |= {key for key in may_be_zero if key not in attributes}
    if missing:
        raise ProfileError(f"the device {name!r} reports no {', '.join(sorted(missing))}; write a profile file for it")
    values = numbers_of_device(attributes)
    values["warps_per_sm"] = values["threads_per_sm"] // WARP
    # Two transfers per memory clock; kHz and bits to bytes per second.
    values["memory_bandwidth"] = 2000 * attributes["memory_clock_rate"] * attributes["global_memory_bus_width"] // 8
    file = ProfileFile(
        name=_normalised(name),
        title=name,
        devices=[name],
        arch=_target(attributes["compute_capability_major"], attributes["compute_capability_minor"]),
        numbers={field: Number(value=value, source="reported by the device") for field, value in values.items()},
    )
    return _assemble(file, name)


@functools.cache
def _architectures() -> ArchitectureFile:
    return read(paths.profiles() / "architectures.yaml", ArchitectureFile, _NUMBERS)


@functools.cache
def _shipped(name: str) -> Profile:
    return _load(paths.profiles() / f"{name}.yaml")


def _load(path: Path) -> Profile:
    return _assemble(read(path, ProfileFile, _NUMBERS), str(path))


def _target(major: int, minor: int) -> str:
    """The compile target of a compute capability: the known one, else the plain sm_XY."""
    plain = f"sm_{major}{minor}"
    return next((arch for arch in _architectures().architectures if arch.rstrip("af") == plain), plain)


def is_amd(arch: str) -> bool:
    """Whether a compile target is one of AMD's, such as "gfx942": only Triton compiles for it, and nothing runs it."""
    return arch.startswith("gfx")


def _capability(arch: str) -> tuple[int, int]:
    if is_amd(arch):
        return int(arch[3:-2]), int(arch[-2], 16)
    digits = arch.removeprefix("sm_").rstrip("af")
    return int(digits[:-1]), int(digits[-1])


def section_of(arch: str, where: str = "") -> str:
    """The architecture whose section serves ``arch``: its own, else the newest one that is not newer."""
    sections = _architectures().architectures
    if is_amd(arch):
        if arch not in sections:
            raise ProfileError(f"{where}: {arch} is no architecture that profiles/architectures.yaml has")
        return arch
    own = _target(*_capability(arch))
    if own in sections:
        return own
    older = [known for known in sections if not is_amd(known) and _capability(known) <= _capability(arch)]
    if not older:
        raise ProfileError(f"{where}: {arch} is too old: tilesmith's kernels need tensor cores of sm_75 or newer")
    return max(older, key=_capability)


def _assemble(file: ProfileFile, where: str) -> Profile:
    """Lay a GPU's own numbers over its architecture's; note the source of each and which latencies are assumed."""
    shared = _architectures()
    section = section_of(file.arch, where)
    architecture = shared.architectures[section]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = ((shared.common, shared.sources), (architecture.numbers, shared.sources), (file.numbers, file.sources))
    for numbers, texts in layers:
        for name, number in numbers.items():
            values[name] = number.value
            sources[name] = texts.get(number.source, number.source)
    latencies: dict[str, Table] = {}
    for name in LATENCIES:
        if name in file.latencies:
            own = file.latencies[name]
            latencies[name], sources[name] = own.value, file.sources.get(own.source, own.source)
            continue
        if "cluster" in LATENCIES[name] and values.get("largest_cluster") == 1:
            continue
        default = default_latency(shared, section, name)
        if default is not None:
            latencies[name], sources[name] = default
    assumed = tuple(name for name in latencies if name not in file.latencies)
    _no_faster_than_issued(latencies, sources, assumed)
    if file.clusters_that_fit is not None:
        sources["clusters_that_fit"] = file.sources.get(file.clusters_that_fit.source, file.clusters_that_fit.source)
    try:
        return Profile(
            name=_normalised(file.name),
            title=file.title,
            aliases=tuple(file.aliases),
            devices=tuple(file.devices),
            arch=file.arch,
            compute_capability=_capability(file.arch),
            clusters_that_fit=dict(file.clusters_that_fit.value) if file.clusters_that_fit else {},
            matrix_instructions={shape: tuple(types) for shape, types in architecture.matrix_instructions.items()},
            features=frozenset(architecture.features),
            latencies=latencies,
            sources=sources,
            assumed=assumed,
            **values,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ProfileError(f"{where}: {field + ': ' if field else ''}{in_words(first)} (docs/profiles.md)") from error


def _no_faster_than_issued(latencies: dict[str, Table], sources: dict[str, str], assumed: tuple[str, ...]) -> None:
    """Raise an assumed mma latency to the GPU's own issue interval: a dependent chain is never faster than that."""
    chain, interval = latencies.get("mma"), latencies.get("mma_interval")
    if "mma" in assumed and isinstance(chain, float) and isinstance(interval, float) and chain < interval:
        latencies["mma"] = interval
        sources["mma"] = f"assumed: no less than mma_interval ({sources['mma_interval']})"


def _depths(table: Table) -> set[int]:
    """How many coordinates the entries of a table take."""
    if not isinstance(table, dict):
        return {0}
    return {2 if isinstance(inner, dict) else 1 for inner in table.values()}


def _interpolate(table: Table, at: tuple[float, ...]) -> float:
    if not isinstance(table, dict):
        return float(table)
    keys = sorted(table)
    first, rest = at[0], at[1:]
    if first <= keys[0] or len(keys) == 1:
        return _interpolate(table[keys[0]], rest)
    upper = min(bisect_left(keys, first), len(keys) - 1)
    low, high = keys[upper - 1], keys[upper]
    below = _interpolate(table[low], rest)
    return below + (_interpolate(table[high], rest) - below) * (first - low) / (high - low)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _normalised(name: str) -> str:
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())
