"""Whether a configuration's numbers are what its cell, schedule and tiling imply; no GPU is needed.

What a file says of itself is believed nowhere: the source is generated anew and compared, the binary compiled anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen import schedules
from kernelgen.build.cache import program_hash, source_hash
from kernelgen.build.compile import Binary, compile_source, compiler_version
from kernelgen.errors import CompileError, ConfigError, InfeasibleError, near_names
from kernelgen.hardware.profile import is_amd
from kernelgen.program.source import Source
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.base import stated_problem

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.records.config import CellRecord, TunedConfig

_ELF = b"\x7fELF"
_CUDA, _AMD = 190, 224
"""ELF's numbers of the machines (e_machine, EM_CUDA and EM_AMDGPU)."""


@dataclass(frozen=True)
class Checked:
    """cell, tiling: built anew from the configuration, with today's predictions. remarks: what could
    not be compared, and why, in words."""

    cell: Cell
    tiling: Tiling
    remarks: tuple[str, ...]


def find_profile(config: TunedConfig, gpu: str | None = None) -> Profile:
    """The profile that a configuration names: among those that come with tilesmith, of a GPU in this machine, or in
    the file ``gpu``. Raises ConfigError where it is none of these, and for an ``arch`` that is not the profile's."""
    from kernelgen.device import gpu as driver
    from kernelgen.hardware.profile import load_profile, profile_names

    profile: Profile | None = None
    if gpu is not None:
        profile = load_profile(gpu)
        if profile.name != config.gpu:
            raise ConfigError(f"gpu: {config.gpu!r}, but --gpu {gpu} is the profile of {profile.name!r}")
    elif config.gpu in profile_names():
        profile = load_profile(config.gpu)
    elif driver.why_no_gpu() is None:
        here = (driver.device(index).profile() for index in range(driver.device_count()))
        profile = next((each for each in here if each.name == config.gpu), None)
    if profile is None:
        raise ConfigError(
            f"gpu: there is no profile called {config.gpu!r}; {near_names(config.gpu, profile_names())} (if it is of "
            "your own, give its file with --gpu)"
        )
    if profile.arch != config.arch:
        raise ConfigError(f"arch: {config.arch}, but {profile.name} is {profile.arch}")
    return profile


def check_config(config: TunedConfig, program: Program, cubins: Sequence[bytes], profile: Profile) -> Checked:
    """Check a configuration and the files beside it, which are ``program`` and its ``cubins``.

    Raises ConfigError that names every field which contradicts the others, one a line.
    """
    cell, schedule = config.load_cell(), schedules.get(config.schedule)
    wrong: dict[str, str] = {}
    remarks = _changed_since(config.cell)
    if schedule.direction != config.direction:
        wrong["direction"] = f"{config.direction}, but the schedule {config.schedule} runs {schedule.direction}"
        raise _error(wrong)
    _check_tiling(config, cell, profile)
    fresh = schedule.tiling(cell, config.shape, profile, config.tiling)
    today = schedule.program(cell, config.shape, profile, fresh)
    same = [call.source.text for call in program.calls] == [call.source.text for call in today.calls]
    if not same:
        remarks.append(
            "the source is not what this tilesmith generates for this tiling: an older or a newer one wrote it, or "
            "somebody changed it. What follows is about the source as it is"
        )
    _compare_programs(wrong, program, today, same)
    for name in ("threads", "blocks", *(("shared_memory",) if same else ())):
        _compare(wrong, f"predicted.{name}", getattr(config.predicted, name), getattr(fresh.resources, name))
    for name in ("registers", "blocks_per_sm"):
        was, now = getattr(config.predicted, name), getattr(fresh.resources, name)
        if was != now:
            remarks.append(f"predicted.{name} is {was:,}; the model of this tilesmith says {now:,}")
    if abs(config.model.us_per_step - fresh.clocks_per_step / profile.clock_mhz) > 1e-6 * config.model.us_per_step:
        remarks.append(
            f"model.us_per_step is {config.model.us_per_step:.4g}; the model of this tilesmith says "
            f"{fresh.clocks_per_step / profile.clock_mhz:.4g}"
        )
    if program_hash(program) != config.source_hash:
        remarks.append("source_hash is not that of the sources and today's headers: one has changed since")
    for place, (call, cubin) in enumerate(zip(program.calls, cubins, strict=True)):
        remarks += _check_binary(wrong, config, place, call.source, cubin)
    if wrong:
        raise _error(wrong)
    return Checked(cell, fresh, tuple(dict.fromkeys(remarks)))


def _changed_since(cell: CellRecord) -> list[str]:
    """That the user's file is no longer what was tuned, if it is there; the configuration holds what was."""
    try:
        same = cell.path is None or Path(cell.path).read_text(encoding="utf-8") == cell.definition
    except (OSError, UnicodeDecodeError):
        return []
    words = f"{cell.path} has changed since; what is checked is the cell as it was tuned, which the configuration holds"
    return [] if same else [words]


def _compare_programs(wrong: dict[str, str], program: Program, today: Program, same: bool) -> None:
    """Compare how the calls are started; and, of the same sources, what they take."""
    _compare(wrong, "axes", dict(program.axes), dict(today.axes))
    _compare(wrong, "between", program.between, today.between)
    _compare(wrong, "products", program.products, today.products)
    _compare(wrong, "calls", len(program.calls), len(today.calls))
    for place, (given, implied) in enumerate(zip(program.calls, today.calls, strict=False)):
        called = f"calls.{place}"
        _compare(wrong, f"{called}.entry", given.source.entry, implied.source.entry)
        if same:
            _compare(wrong, f"{called}.arguments", given.source.arguments, implied.source.arguments)
            _compare(wrong, f"{called}.writes", given.source.writes, implied.source.writes)
        for name, value in asdict(implied.launch).items():
            _compare(wrong, f"{called}.launch.{name}", getattr(given.launch, name), value)
    if same:
        _compare(wrong, "num_stages", program.num_stages, today.num_stages)


def _check_tiling(config: TunedConfig, cell: Cell, profile: Profile) -> None:
    """Raise ConfigError unless the tiling is a solution of its schedule's own Problem."""
    schedule = schedules.get(config.schedule)
    try:
        problem = stated_problem(schedule, cell, config.shape, profile)
    except InfeasibleError as error:
        raise ConfigError(f"schedule: {error}") from error
    names = ", ".join(problem.domains)
    if set(config.tiling) != set(problem.domains):
        given = ", ".join(config.tiling) or "none"
        raise _error({"tiling": f"has the variables {given}; those of the schedule {config.schedule} are {names}"})
    broken = problem.check(config.tiling)
    if broken:
        labels = "; ".join(constraint.label for constraint in broken)
        raise _error({"tiling": f"{_row(config.tiling)} is none of the schedule {config.schedule}: {labels}"})


def _check_binary(wrong: dict[str, str], config: TunedConfig, place: int, source: Source, cubin: bytes) -> list[str]:
    """Compare a call's binary and what was reported of it with what the source compiles to; what could not be
    compared."""
    call, called = config.calls[place], f"calls.{place}"
    file = f"{called}.files.cubin ({call.files.cubin})"
    machine = _AMD if is_amd(source.arch) else _CUDA
    if cubin[:4] != _ELF or int.from_bytes(cubin[18:20], "little") != machine or call.entry.encode() not in cubin:
        wrong[file] = f"is no compiled {'AMD' if machine == _AMD else 'CUDA'} kernel with an entry {call.entry}"
        return []
    current = source_hash(source) == call.source_hash
    unseen = f"the binary of {call.entry} was not compared"
    try:
        here = compiler_version(source.language)
        if here != config.versions.compiler:
            return [f"{unseen}: it is {config.versions.compiler}'s, and here is {here}"]
        binary: Binary = compile_source(source)
    except CompileError as error:
        return [f"{unseen}, since its source cannot be compiled here: {error}"]
    if binary.cubin == cubin:
        _compare(wrong, f"{called}.source_hash", call.source_hash, binary.source_hash)
        for name, value in asdict(binary.report).items():
            _compare(wrong, f"{called}.reported.{name}", getattr(call.reported, name), value)
        return []
    if current:
        wrong[file] = f"is not what {here} makes of the source"
        return []
    return [f"{unseen}: the source, or tilesmith's headers, have changed since it was compiled"]


def _compare(wrong: dict[str, str], field: str, given: object, implied: object) -> None:
    if given != implied:
        wrong[field] = f"is {_words(given)}, where the cell, the schedule and the tiling imply {_words(implied)}"


def _words(value: object) -> str:
    return str([*map(str, value)]) if isinstance(value, tuple) else str(value)


def _row(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _error(wrong: Mapping[str, str]) -> ConfigError:
    lines = [f"  {field}: {what}" for field, what in wrong.items()]
    return ConfigError("the configuration contradicts itself:\n" + "\n".join(lines))
