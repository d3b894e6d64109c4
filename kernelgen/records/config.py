"""TunedConfig: a tuned kernel as three files that belong together, lstm.yaml, lstm.cu and lstm.cubin."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from kernelgen.build.cache import program_hash, write_together
from kernelgen.build.compile import Binary, Report
from kernelgen.errors import CellError, ConfigError
from kernelgen.program.launch import LaunchRule
from kernelgen.program.product import ProductCall
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import FEATURES, INPUT_PRODUCT, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Resources, Tiling
from kernelgen.records.config_files import SUFFIXES, check_output, free_name, owned, sha256
from kernelgen.records.config_text import dump, reason
from kernelgen.records.trial import Measurement, Trial, Validation, installed_version, timestamp
from kernelgen.temporary import temporary_folder

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell

SCHEMA = 5
"""Version of the YAML's fields. Raise it whenever a field changes its name or meaning, or comes or goes."""

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
        return cls(source=source, source_sha256=sha256(text), cubin=cubin, cubin_sha256=sha256(binary))


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
        own = owned(path)
        contents: dict[str, bytes] = {}
        calls = []
        for place, (record, call, binary) in enumerate(zip(self.calls, program.calls, binaries, strict=True)):
            source, text, cubin, data = _contents(path.stem, place, call, binary)
            source, cubin = free_name(path, own, Path(source), text), free_name(path, own, Path(cubin), data)
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


def _contents(stem: str, place: int, call: KernelCall, binary: Binary) -> tuple[str, bytes, str, bytes]:
    """The files of a call: name and text of its source, name and bytes of its binary."""
    name = f"{stem}_{call.source.entry.removeprefix('tilesmith_')}" if place else stem
    return f"{name}{SUFFIXES[call.source.language]}", call.source.text.encode(), f"{name}.cubin", binary.cubin
