"""Reading a tuned configuration and the files beside it, and refusing what no kernel has."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pydantic

from kernelgen.errors import ConfigError, ShapeError
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.rules import evaluate, sizes_of
from kernelgen.program.source import Language, Source
from kernelgen.records.config import SCHEMA, CallRecord, TunedConfig
from kernelgen.records.config_files import FORMAT, SUFFIXES, read_beside
from kernelgen.records.config_text import explain, parse
from kernelgen.records.older import FIRST, upgraded
from kernelgen.records.renames import source_of_today, with_names_of_today

MOST_CALLS = 8
"""Kernels of a program at most."""


def load_config(path: str | Path) -> TunedConfig:
    """Read FILE.yaml and check that the files beside it are the ones it was written with.

    Raises ConfigError: unreadable, not YAML, not a configuration, of another schema version, fields that are missing,
    unknown or wrong (one line each), a .cu or .cubin missing or changed.
    """
    path = Path(path)
    config = _parse(path)
    for call in config.calls:
        read_beside(path, call.files.source, call.files.source_sha256)
        read_beside(path, call.files.cubin, call.files.cubin_sha256)
    return config


def read_program(path: str | Path) -> Program:
    """The program that FILE.yaml describes, with the sources beside it by the names of today's headers. Raises
    ConfigError."""
    path = Path(path)
    config = _parse(path)

    def call(record: CallRecord) -> KernelCall:
        text = read_beside(path, record.files.source, record.files.source_sha256)
        try:
            language: Language = "triton" if record.files.source.endswith(SUFFIXES["triton"]) else "cuda"
            today = source_of_today(text.decode()) if language == "cuda" else text.decode()
            source = Source(today, record.entry, config.arch, record.arguments, record.writes, language)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path.parent / record.files.source} is no text: {error}") from error
        return KernelCall(source, record.launch)

    main, *then = map(call, config.calls)
    return Program(
        config.direction,
        main,
        tuple(then),
        dict(config.axes),
        config.num_stages,
        between=config.between,
        products=config.products,
    )


def read_cubins(path: str | Path) -> tuple[bytes, ...]:
    """The compiled kernels that FILE.yaml describes, in the order of its calls. Raises ConfigError."""
    path = Path(path)
    files = [call.files for call in _parse(path).calls]
    return tuple(read_beside(path, each.cubin, each.cubin_sha256) for each in files)


def _parse(path: Path) -> TunedConfig:
    fields = parse(path)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is YAML, but no tuned configuration (which says 'format: {FORMAT}'). Make one: tilesmith tune"
        )
    version: Any = fields.get("schema_version")
    if type(version) is int and FIRST <= version < SCHEMA:
        fields = upgraded(with_names_of_today(fields), version, path)
    elif type(version) is int and version != SCHEMA:
        advice = "Update tilesmith" if version > SCHEMA else "Tune it again with this tilesmith"
        raise ConfigError(
            f"{path} has schema version {version}; this tilesmith reads versions {FIRST} to {SCHEMA}. {advice}."
        )
    try:
        config = TunedConfig.model_validate_json(json.dumps(fields, default=str))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path} is no valid configuration:\n" + "\n".join(explain(error))) from error
    except (ShapeError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no valid configuration: {error}") from error
    absurd = absurdities(config)
    if absurd:
        raise ConfigError(f"{path} is no valid configuration:\n" + "\n".join(absurd))
    return config


def absurdities(config: TunedConfig) -> list[str]:
    """One line for each field whose value no kernel has, whatever the others are."""
    checked, model, time = config.validation, config.model, config.measured
    lines = [] if config.tiling else ["  tiling: has no variables"]
    lines += [f"  tiling.{name}: must not be {value}" for name, value in config.tiling.items() if value < 0]
    if not 1 <= len(config.calls) <= MOST_CALLS:
        lines.append(f"  calls: must be 1 to {MOST_CALLS}, not {len(config.calls)}")
    counts = {"num_stages": config.num_stages}
    amounts: dict[str, float] = {}
    for place, call in enumerate(config.calls):
        called = f"calls.{place}"
        lines += _absurd_names(called, call)
        counts |= {f"{called}.launch.block": call.launch.block, f"{called}.launch.cluster": call.launch.cluster}
        counts[f"{called}.reported.registers"] = call.reported.registers
        amounts[f"{called}.launch.shared_memory"] = call.launch.shared_memory
        amounts |= {f"{called}.reported.{name}": value for name, value in dataclasses.asdict(call.reported).items()}
    lines += _absurd_rules(config, counts)
    counts |= {f"validation.{name}": getattr(checked, name) for name in ("seeds", "batch", "seq")}
    counts |= {f"predicted.{name}": getattr(config.predicted, name) for name in ("registers", "threads", "blocks")}
    counts |= {"measured.runs": time.runs} if time else {}
    lines += [f"  {name}: must be at least 1, not {value}" for name, value in counts.items() if value < 1]
    amounts["predicted.shared_memory"] = config.predicted.shared_memory
    lines += [f"  {name}: must not be {value}" for name, value in amounts.items() if value < 0]
    numbers = {f"model.{name}": getattr(model, name) for name in ("clocks_per_step", "us_per_step", "total_ms")}
    numbers |= {"validation.tolerance": checked.tolerance}
    if time:
        numbers |= {f"measured.{name}": getattr(time, name) for name in ("median_ms", "p10_ms", "p90_ms")}
        numbers |= {"measured.energy_mj": time.energy_mj} if time.energy_mj is not None else {}
    lines += [f"  {name}: must be positive, not {value}" for name, value in numbers.items() if not 0 < value < math.inf]
    for name, error in checked.errors.items():
        if not 0 <= error <= checked.tolerance:
            lines.append(f"  validation.errors.{name}: {error} is not within the tolerance, {checked.tolerance}")
    if not checked.errors:
        lines.append("  validation.errors: is empty, so nothing was compared")
    if time and not time.p10_ms <= time.median_ms <= time.p90_ms:
        lines.append("  measured: the median must lie between the 10th and the 90th percentile")
    if not math.isclose(model.total_ms, model.us_per_step * config.shape.seq / 1000, rel_tol=1e-6):
        lines.append(f"  model.total_ms: {model.total_ms} is not us_per_step for each of {config.shape.seq} steps")
    return lines


def _absurd_names(called: str, call: CallRecord) -> list[str]:
    """One line for each name of a call's arguments that cannot be right."""
    lines = [
        f"  {called}.arguments: {name!r} comes twice" for name, count in Counter(call.arguments).items() if count > 1
    ]
    foreign = [name for name in call.writes if name not in call.arguments]
    return lines + [f"  {called}.writes: {name!r} is none of its arguments" for name in foreign]


def _absurd_rules(config: TunedConfig, counts: dict[str, int]) -> list[str]:
    """One line for each rule that has no value; the values of the others join ``counts``."""
    sizes = sizes_of(config.shape)
    rules = {f"axes.{axis}": rule for axis, rule in config.axes.items()}
    for name, products in (("between", config.between), ("products", config.products)):
        for place, product in enumerate(products):
            rules |= {f"{name}.{place}.sizes.{axis}": rule for axis, rule in product.sizes.items()}
    for place, call in enumerate(config.calls):
        rules |= {f"calls.{place}.launch.grid.{axis}": rule for axis, rule in zip("xyz", call.launch.grid, strict=True)}
    lines = []
    for field, rule in rules.items():
        try:
            counts[field] = evaluate(rule, sizes)
        except ConfigError as error:
            lines.append(f"  {field}: {error}")
    return lines
