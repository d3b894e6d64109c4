"""TunedConfig: a tuned kernel as three files that belong together, lstm.yaml, lstm.cu and lstm.cubin."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from constrint.documents import TooLarge, read_bounded, read_text
from kernelgen.build.cache import program_hash, write_together
from kernelgen.build.compile import Binary, Report
from kernelgen.errors import CellError, ConfigError, ShapeError
from kernelgen.program.launch import LaunchRule
from kernelgen.program.product import ProductCall
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.rules import evaluate, sizes_of
from kernelgen.program.shape import FEATURES, INPUT_PRODUCT, Shape
from kernelgen.program.source import Language, Source
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Resources, Tiling
from kernelgen.records.config_text import MOST_BYTES, dump, explain, parse, reason
from kernelgen.records.older import FIRST, upgraded
from kernelgen.records.renames import source_of_today, with_names_of_today
from kernelgen.records.trial import Measurement, Trial, Validation, installed_version, timestamp
from kernelgen.temporary import temporary_folder

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell

SCHEMA = 5
"""Version of the YAML's fields. Raise it whenever a field changes its name or meaning, or comes or goes."""

FORMAT = "tilesmith-config"

MOST_CALLS = 8
"""Kernels of a program at most."""

MOST_BESIDE = 1 << 26
"""Bytes of a source or a binary; larger ones are refused."""

_HEADER = """\
# A {direction} kernel tuned by tilesmith: {cell} at {shape} on {gpu}.
# Use it from Python:    kernelgen.load("{name}.yaml")
# Look at it, check it:  tilesmith show {name}.yaml; tilesmith validate {name}.yaml
# It belongs to it, and lies beside it: {files}.
"""

Digest = Annotated[str, pydantic.StringConstraints(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, pydantic.StringConstraints(pattern=r"^[^/\\\x00]+\.(cu|py|cubin)$")]


class _Record(pydantic.BaseModel):
    """Fields as they are written, no more, no fewer, never converted."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class CellRecord(_Record):
    """Which cell: its name and fingerprint and, for a cell from a user's file, how to build it again.

    path: where the file was. attribute: the Cell's name in it, if one was given. definition: the file's text.
    """

    name: str
    fingerprint: str
    path: str | None = None
    attribute: str | None = None
    definition: str | None = None

    @classmethod
    def of(cls, cell: Cell, spec: str | None = None) -> CellRecord:
        """Describe ``cell``; spec: what it was loaded from, ``"lstm"`` or ``"path/to/file.py:NAME"``.

        Raises ConfigError when the file has become unreadable.
        """
        path, _, attribute = (spec or "").partition(".py")
        if not spec or not (attribute.startswith(":") or spec.endswith(".py")):
            return cls(name=cell.name, fingerprint=cell.fingerprint)
        file = Path(path + ".py")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the cell file {file} again: {reason(error)}") from error
        return cls(
            name=cell.name,
            fingerprint=cell.fingerprint,
            path=str(file),
            attribute=attribute.removeprefix(":") or None,
            definition=text,
        )

    def load(self, of: str) -> Cell:
        """The cell, from the library or from the definition kept here, which is then run as Python. of: what the record
        is a part of, for messages.

        Raises ConfigError when it cannot be built or is no longer the cell that was recorded.
        """
        from kernelgen.cells import load_cell

        try:
            if self.definition is None:
                cell = load_cell(self.name)
            else:
                with temporary_folder("cell") as folder:
                    file = folder / "cell.py"
                    file.write_text(self.definition, encoding="utf-8")
                    cell = load_cell(f"{file}:{self.attribute}" if self.attribute else str(file))
        except CellError as error:
            raise ConfigError(f"the cell {self.name!r} of this {of} cannot be built: {error}") from error
        if cell.fingerprint != self.fingerprint:
            raise ConfigError(
                f"the cell {self.name!r} is not the one this {of} was made for: its definition has changed since "
                f"(fingerprint {cell.fingerprint[:12]}, then {self.fingerprint[:12]}). Tune it again."
            )
        return cell


class ModelTime(_Record):
    """The cost model's time: GPU clocks and microseconds for one step, milliseconds for the whole sequence."""

    clocks_per_step: float
    us_per_step: float
    total_ms: float


class Versions(_Record):
    """What made the kernel, and proved it."""

    tilesmith: str
    compiler: str
    python: str
    numpy: str


class Files(_Record):
    """The files beside the YAML, by name, and the sha256 of their contents."""

    source: FileName
    source_sha256: Digest
    cubin: FileName
    cubin_sha256: Digest

    @classmethod
    def of(cls, source: str, text: bytes, cubin: str, binary: bytes) -> Files:
        """The files of these names and contents."""
        return cls(source=source, source_sha256=_sha256(text), cubin=cubin, cubin_sha256=_sha256(binary))


class CallRecord(_Record):
    """One kernel of the program. source_hash: as Trial's, of this kernel alone. entry: its name in the binary.
    arguments: the entry's, in order; writes: those of them that it writes. launch: see program/launch.py. reported: by
    the compiler."""

    files: Files
    source_hash: Digest
    entry: str
    arguments: tuple[str, ...]
    writes: tuple[str, ...]
    launch: LaunchRule
    reported: Report


class TunedConfig(_Record):
    """Everything about a tuned kernel; the fields are the YAML's, in its order.

    gpu: the profile's name. direction: of the pass. calls: the kernels that run one after another, the recurrence
    first. axes, num_stages, between, products: as of the Program. predicted: what the schedule expected of the first.
    measured: absent where no GPU was at hand. source_hash: as Trial's.
    """

    format: Literal["tilesmith-config"] = "tilesmith-config"
    schema_version: Literal[5] = 5
    created: str
    cell: CellRecord
    shape: Shape
    gpu: str
    arch: str
    direction: Direction
    schedule: str
    tiling: dict[str, int]
    calls: tuple[CallRecord, ...]
    axes: dict[str, str]
    num_stages: int
    between: tuple[ProductCall, ...] = ()
    products: tuple[ProductCall, ...] = ()
    predicted: Resources
    model: ModelTime
    measured: Measurement | None = None
    validation: Validation
    versions: Versions
    source_hash: Digest

    @classmethod
    def of(
        cls, trial: Trial, *, cell: CellRecord, tiling: Tiling, program: Program, binaries: Sequence[Binary]
    ) -> TunedConfig:
        """Put together what is known of a trial that was proved right. binaries: of the program's calls.

        Raises ConfigError for a trial without a validation: a kernel nobody checked is not tuned.
        """
        if trial.validation is None:
            raise ConfigError(f"the trial of {tiling} was not validated, so there is no tuned kernel to write down")
        return cls(
            created=timestamp(),
            cell=cell,
            shape=trial.shape,
            gpu=trial.gpu,
            arch=program.main.source.arch,
            direction=program.direction,
            schedule=tiling.schedule,
            tiling=dict(tiling.values),
            calls=tuple(
                CallRecord(
                    files=Files.of(*_contents(cell.name, place, call, binary)),
                    source_hash=binary.source_hash,
                    entry=call.source.entry,
                    arguments=call.source.arguments,
                    writes=call.source.writes,
                    launch=call.launch,
                    reported=binary.report,
                )
                for place, (call, binary) in enumerate(zip(program.calls, binaries, strict=True))
            ),
            axes=dict(program.axes),
            num_stages=program.num_stages,
            between=program.between,
            products=program.products,
            predicted=tiling.resources,
            model=ModelTime(
                clocks_per_step=tiling.clocks_per_step,
                us_per_step=trial.model_us_per_step,
                total_ms=trial.model_us_per_step * trial.shape.seq / 1000,
            ),
            measured=trial.measurement,
            validation=trial.validation,
            versions=Versions(
                tilesmith=installed_version(),
                compiler=binaries[0].compiler,
                python=platform.python_version(),
                numpy=installed_version("numpy"),
            ),
            source_hash=program_hash(program),
        )

    @property
    def main(self) -> CallRecord:
        """The recurrence itself."""
        return self.calls[0]

    @property
    def beside(self) -> tuple[str, ...]:
        """The names of the files that lie beside the YAML."""
        return tuple(name for call in self.calls for name in (call.files.source, call.files.cubin))

    def to_tiling(self) -> Tiling:
        """The tiling, as its schedule made it."""
        return Tiling(self.schedule, dict(self.tiling), self.predicted, self.model.clocks_per_step)

    def load_cell(self) -> Cell:
        """The cell: see CellRecord.load. Raises ConfigError."""
        return self.cell.load("configuration")

    def save(self, path: Path, program: Program, binaries: Sequence[Binary]) -> TunedConfig:
        """Write FILE.yaml with FILE.cu and FILE.cubin beside it, and those of further calls as FILE_CALL.cu and so on;
        each is whole or not there, the YAML comes last.

        Folders are made as needed, and a configuration of this name is replaced with its files. A file that is
        another's stays: then part of the new one's sha256 stands in its name. Returns the configuration as written.
        Raises ConfigError when the path does not end in .yaml or .yml, is a file of another kind, or cannot be written;
        no half-written file is left.
        """
        check_output(path)
        own = _owned(path)
        contents: dict[str, bytes] = {}
        calls = []
        for place, (record, call, binary) in enumerate(zip(self.calls, program.calls, binaries, strict=True)):
            source, text, cubin, data = _contents(path.stem, place, call, binary)
            source, cubin = _free_name(path, own, Path(source), text), _free_name(path, own, Path(cubin), data)
            contents |= {source: text, cubin: data}
            calls.append(record.model_copy(update={"files": Files.of(source, text, cubin, data)}))
        written = self.model_copy(update={"calls": tuple(calls)})
        contents[path.name] = written.to_yaml(path.stem).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_together([(path.parent / name, data) for name, data in contents.items()])
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {reason(error)}") from error
        return written

    def to_yaml(self, name: str) -> str:
        """The YAML's text; name: the file's, without its suffix."""
        header = _HEADER.format(
            direction=self.direction,
            cell=self.cell.name,
            shape=self.shape,
            gpu=self.gpu,
            name=name,
            files=", ".join(self.beside),
        )
        fields = self.model_dump(mode="json")
        fields["cell"] = {key: value for key, value in fields["cell"].items() if value is not None}
        if self.measured is not None and self.measured.energy_mj is None:
            del fields["measured"]["energy_mj"]
        for name in ("between", "products"):
            if not fields[name]:
                del fields[name]
        seldom = (*FEATURES, INPUT_PRODUCT)
        fields["shape"] = {key: value for key, value in fields["shape"].items() if value or key not in seldom}
        return header + dump(fields)


SUFFIXES: Mapping[Language, str] = {"cuda": ".cu", "triton": ".triton.py"}
"""Of the file of a source, which tell its language."""


def _contents(stem: str, place: int, call: KernelCall, binary: Binary) -> tuple[str, bytes, str, bytes]:
    """The files of a call: name and text of its source, name and bytes of its binary."""
    name = f"{stem}_{call.source.entry.removeprefix('tilesmith_')}" if place else stem
    return f"{name}{SUFFIXES[call.source.language]}", call.source.text.encode(), f"{name}.cubin", binary.cubin


def check_output(path: Path) -> None:
    """Raise ConfigError if a configuration could not be saved at ``path``; nothing is created.

    For use before a long tuning run: the name, whether the nearest existing folder can be written, and whether what is
    there now is a configuration, which may be replaced.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"a configuration is a .yaml file; {_shown(path)} is not named so")
    try:
        if path.is_dir():
            raise ConfigError(f"cannot write {path}: it is a folder")
        folder = path.absolute().parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise ConfigError(f"cannot write {path}: {folder} is not a folder")
        longest = os.pathconf(folder, "PC_NAME_MAX") - _ADDED_TO_NAMES
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {_shown(path)}: {reason(error)}") from error
    if len(os.fsencode(path.name)) > longest:
        raise ConfigError(f"cannot write {_shown(path)}: a name may have at most {longest} bytes there")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"cannot write {path}: no permission to write in {folder}")
    if path.exists() and _owned(path) is None:
        raise ConfigError(
            f"{path} is there and is no tuned configuration, so it is not replaced; move it away, or choose another "
            "name with --output"
        )


_ADDED_TO_NAMES = 64
"""Bytes by which the names of other files are longer: a part of a hash, and those of a temporary."""


def _shown(path: Path) -> str:
    """A path in a message, as far as it fits on a line."""
    text = str(path)
    return text if len(text) <= 120 else f"{text[:57]}...{text[-57:]}"


def _owned(path: Path) -> dict[str, str] | None:
    """The sha256 of each file that the configuration at ``path`` has beside it, by name.

    None where there is no configuration. It may be of any version, or damaged beyond the lines that say so.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, ValueError):
        return None
    if not re.search(rf"^format: {FORMAT}$", text, re.MULTILINE):
        return None
    found = re.finditer(r"^ +(source|cubin): (.+)\n +\1_sha256: (.+)$", text, re.MULTILINE)
    return {match[2].strip("'\""): match[3].strip("'\"") for match in found}


def _free_name(path: Path, own: dict[str, str] | None, wanted: Path, data: bytes) -> str:
    """A name for a file beside ``path`` that takes nothing from anybody: as wanted, else with some of its sha256.

    own: the files of the configuration that ``path`` replaces, which are free unless another one has them too.
    """
    digest = _sha256(data)
    stem, suffix = wanted.stem, wanted.suffix
    names = [f"{stem}{suffix}", f"{stem}-{digest[:12]}{suffix}", f"{stem}-{digest}{suffix}"]
    others = [file for file in (*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")) if file.name != path.name]
    taken = {name for file in others for name in _owned(file) or ()}
    for name in names[:2]:
        try:
            there = _sha256((path.parent / name).read_bytes())
        except FileNotFoundError:
            if name not in taken:
                return name
            continue
        except OSError:
            continue
        if there == digest or (name not in taken and (own or {}).get(name) == there):
            return name
    return names[2]


def load_config(path: Path) -> TunedConfig:
    """Read FILE.yaml and check that the files beside it are the ones it was written with.

    Raises ConfigError: unreadable, not YAML, not a configuration, of another schema version, fields that are missing,
    unknown or wrong (one line each), a .cu or .cubin missing or changed.
    """
    config = _parse(path)
    for call in config.calls:
        _read_beside(path, call.files.source, call.files.source_sha256)
        _read_beside(path, call.files.cubin, call.files.cubin_sha256)
    return config


def read_program(path: Path) -> Program:
    """The program that FILE.yaml describes, with the sources beside it by the names of today's headers. Raises
    ConfigError."""
    config = _parse(path)

    def call(record: CallRecord) -> KernelCall:
        text = _read_beside(path, record.files.source, record.files.source_sha256)
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


def read_cubins(path: Path) -> tuple[bytes, ...]:
    """The compiled kernels that FILE.yaml describes, in the order of its calls. Raises ConfigError."""
    files = [call.files for call in _parse(path).calls]
    return tuple(_read_beside(path, each.cubin, each.cubin_sha256) for each in files)


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


def _read_beside(path: Path, name: str, digest: str) -> bytes:
    file = path.parent / name
    try:
        data = read_bounded(file, MOST_BESIDE)
    except (OSError, TooLarge) as error:
        raise ConfigError(
            f"{path} needs {name} beside it, which cannot be read ({reason(error)}). Copy it there, or tune again."
        ) from error
    if _sha256(data) != digest:
        raise ConfigError(f"{file} is not the file that {path.name} was written with (its sha256 differs). Tune again.")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
