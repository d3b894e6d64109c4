"""TunedConfig: what is written is read back, and whatever is wrong with a file is said in words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from processes import drop_privileges, start, unprivileged_folder

from kernelgen.build.compile import Binary, Report
from kernelgen.cells import load_cell
from kernelgen.errors import ConfigError
from kernelgen.program.arguments import BACKWARD_ARGUMENTS
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.tiling import Resources, Tiling
from kernelgen.records.config import (
    SCHEMA,
    CellRecord,
    TunedConfig,
    check_output,
    load_config,
    read_cubin,
    read_source,
)
from kernelgen.records.trial import Measurement, Trial, Validation

pytestmark = pytest.mark.unit

SOURCE = Source('// "µ"\nextern "C" __global__ void kernel(float* a) { a[0] = 1; }\n', "kernel", "sm_90a")
BINARY = Binary(
    cubin=b"\x7fELF" + bytes(range(256)),
    entry="kernel",
    arch="sm_90a",
    report=Report(118, 0, 0, 0, 0, 2),
    compiler="NVRTC 13.5",
    key="0" * 64,
    source_hash="1" * 64,
    seconds=0.2,
    cached=False,
    log="",
)
TILING = Tiling("resident", {"units": 8, "rows": 8}, Resources(120, 4096, 256, 24, 2), 610.5)
TRIAL = Trial(
    cell="lstm",
    fingerprint="f" * 64,
    shape=Shape(16, 1024, 12, 64),
    gpu="h200",
    arch="sm_90a",
    schedule="resident",
    tiling=dict(TILING.values),
    predicted=TILING.resources,
    model_us_per_step=0.3125,
    status="measured",
    source_hash=BINARY.source_hash,
    validation=Validation("gpu", 3, 16, 1024, 1e-3, {"h": 3e-4, "last": 1e-5}),
    measurement=Measurement(0.37, 0.365, 0.381, 100),
)

CELL_FILE = '''"""A leaky cell of a user's own."""

from kernelgen.cells.language import Cell, Gate, tanh

LEAKY = Cell(
    name="leaky",
    title="Leaky",
    paper="",
    states=("h",),
    gates=(Gate("z"),),
    step=lambda gate, state: {"h": 0.9 * state.h + 0.1 * tanh(gate.z)},
)
'''


def make(
    trial: Trial = TRIAL, cell: CellRecord | None = None, tiling: Tiling = TILING, source: Source = SOURCE
) -> TunedConfig:
    return TunedConfig.of(
        trial,
        cell=cell or CellRecord(name="lstm", fingerprint="f" * 64),
        tiling=tiling,
        launch=Launch((12, 2, 1), 256, 4096),
        source=source,
        binary=BINARY,
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "lstm.yaml"
    make().save(path, SOURCE, BINARY)
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "pydantic" not in message
    assert "Traceback" not in message
    return message


def edited(path: Path, old: str, new: str) -> str:
    """What is said of the file after replacing ``old``, which must be there once or more, by ``new``."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return complaint(path)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "lstm.yaml"
    written = make().save(path, SOURCE, BINARY)
    assert sorted(file.name for file in path.parent.iterdir()) == ["lstm.cu", "lstm.cubin", "lstm.yaml"]
    assert load_config(path) == written
    assert read_source(path) == SOURCE
    assert read_cubin(path) == BINARY.cubin
    assert written.to_tiling() == TILING
    assert written.shape == TRIAL.shape
    assert written.launch == Launch((12, 2, 1), 256, 4096)
    assert written.measured == TRIAL.measurement
    assert written.validation == TRIAL.validation
    assert written.reported == BINARY.report
    assert written.model.total_ms == pytest.approx(0.3125 * 1.024)


def test_without_a_gpu_there_is_no_measured_time(tmp_path: Path) -> None:
    path = tmp_path / "lstm.yaml"
    make(TRIAL.replace(measurement=None, status="valid")).save(path, SOURCE, BINARY)
    assert load_config(path).measured is None


def test_what_nobody_validated_is_no_tuned_config() -> None:
    with pytest.raises(ConfigError, match="not validated"):
        make(TRIAL.replace(validation=None))


def test_a_person_can_read_it(saved: Path) -> None:
    text = saved.read_text()
    assert text.startswith("# A forward kernel tuned by tilesmith: lstm at B=16 T=1024 12x64 bfloat16 on h200.\n")
    assert 'kernelgen.load("lstm.yaml")' in text
    assert len(text.splitlines()) < 90
    assert "  grid: [12, 2, 1]\n" in text
    keys = list(yaml.safe_load(text))
    assert keys == list(TunedConfig.model_fields)
    assert "!!" not in text


def test_saving_again_replaces_all_three(saved: Path) -> None:
    source = Source(SOURCE.text + "// more\n", "kernel", "sm_90a")
    make().save(saved, source, BINARY)
    assert read_source(saved) == source
    assert len(list(saved.parent.iterdir())) == 3


def test_moved_together_they_still_work(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("lstm.cu", "lstm.cubin"):
        (saved.parent / name).rename(folder / name)
    saved.rename(folder / "renamed.yaml")
    assert read_cubin(folder / "renamed.yaml") == BINARY.cubin
    assert load_config(folder / "renamed.yaml").gpu == "h200"


def test_a_library_cell_is_found_again(saved: Path) -> None:
    cell = load_cell("lstm")
    record = CellRecord.of(cell, "lstm")
    assert (record.name, record.definition) == ("lstm", None)
    assert make(cell=record).load_cell() == cell
    with pytest.raises(ConfigError, match="definition has changed"):
        load_config(saved).load_cell()
    with pytest.raises(ConfigError, match="cannot be built"):
        make(cell=CellRecord(name="lstn", fingerprint="f")).load_cell()


@pytest.mark.parametrize("attribute", [":LEAKY", ""])
def test_a_user_s_cell_is_built_from_the_config_alone(tmp_path: Path, attribute: str) -> None:
    file = tmp_path / "my_cells.py"
    file.write_text(CELL_FILE)
    spec = f"{file}{attribute}"
    cell = load_cell(spec)
    path = tmp_path / "leaky.yaml"
    make(cell=CellRecord.of(cell, spec)).save(path, SOURCE, BINARY)
    file.unlink()
    config = load_config(path)
    assert config.cell.definition == CELL_FILE
    assert config.load_cell().fingerprint == cell.fingerprint
    assert "definition: |\n" in path.read_text()
    changed = path.read_text().replace("0.9 * state.h", "0.8 * state.h")
    path.write_text(changed)
    with pytest.raises(ConfigError, match="definition has changed"):
        load_config(path).load_cell()


def test_a_file_that_is_missing_or_unreadable(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "absent.yaml")
    assert "Is a directory" in complaint(tmp_path)
    with unprivileged_folder() as folder:
        path = folder / "lstm.yaml"
        make().save(path, SOURCE, BINARY)
        path.chmod(0o000)
        drop_privileges()
        assert "Permission denied" in complaint(path)


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"a: [1, 2", "is not YAML: line 2, column 1"),
        (b"a: b: c", "is not YAML: line 1, column 5"),
        (b"\xff\xfe\x00\x01binary", "is not YAML"),
        (b"a: !!python/object:os.system {}", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"", "no tuned configuration"),
        (b"- 1\n- 2\n", "no tuned configuration"),
        (b"schema_version: 1\nname: something else\n", "no tuned configuration"),
        (b"#" * (1 << 20) + b"\n", "no tuned configuration"),
        (
            b"format: tilesmith-config\na: &a [*a]\n",
            "is not YAML: line 2, column 4: what this anchor names holds itself",
        ),
        (b"? [1, 2]\n: 3\n", "is not YAML: line 1, column 3"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, contents: bytes, what: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_bytes(contents)
    assert what in complaint(path)


def test_another_schema_version(saved: Path) -> None:
    message = edited(saved, f"schema_version: {SCHEMA}", f"schema_version: {SCHEMA + 1}\nfield_of_tomorrow: 1")
    assert f"schema version {SCHEMA + 1}" in message
    assert f"reads versions 1 to {SCHEMA}" in message
    assert "Update tilesmith" in message
    assert "field_of_tomorrow" not in message
    assert "Tune it again" in edited(saved, f"schema_version: {SCHEMA + 1}", "schema_version: 0")


@pytest.mark.parametrize(
    ("version", "lacking"), [(1, ("direction: forward\n", "  recompute: false\n")), (2, ("  recompute: false\n",))]
)
def test_a_file_of_an_older_schema_is_read(saved: Path, version: int, lacking: tuple[str, ...]) -> None:
    older = saved.read_text().replace(f"schema_version: {SCHEMA}", f"schema_version: {version}")
    for field in lacking:
        assert field in older
        older = older.replace(field, "")
    saved.write_text(older)
    config = load_config(saved)
    assert (config.schema_version, config.direction, config.shape.recompute) == (SCHEMA, "forward", False)
    config.save(saved, SOURCE, BINARY)
    assert "direction: forward" in saved.read_text()


@pytest.mark.parametrize("change", [("direction: forward", "direction: backward"), ("save: hidden", "save: gates")])
def test_an_older_kernel_for_training_is_to_be_tuned_again(saved: Path, change: tuple[str, str]) -> None:
    text = saved.read_text()
    assert change[0] in text
    saved.write_text(text.replace(*change).replace(f"schema_version: {SCHEMA}", "schema_version: 3"))
    with pytest.raises(ConfigError, match=r"schema version 3: before version 4 kernels for training .* Tune it again"):
        load_config(saved)


def test_a_backward_configuration_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lstm_backward.yaml"
    trial, tiling = TRIAL.replace(schedule="resident_backward"), replace(TILING, schedule="resident_backward")
    source = replace(SOURCE, arguments=BACKWARD_ARGUMENTS)
    make(trial, tiling=tiling, source=source).save(path, source, BINARY)
    assert path.read_text().startswith("# A backward kernel tuned by tilesmith: lstm at ")
    config = load_config(path)
    assert (config.direction, config.arguments) == ("backward", BACKWARD_ARGUMENTS)
    assert read_source(path) == source


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("gpu: h200\n", "", "gpu: is missing"),
        ("gpu: h200\n", "gpu: h200\ngpus: 2\n", "gpus: no such field"),
        ("gpu: h200", "gpu: 200", "gpu: should be a valid string, not 200"),
        ("  batch: 16\n", "  batch: sixteen\n", "shape.batch: should be a valid integer, not 'sixteen'"),
        ("  batch: 16\n", "  batch: 16.0\n", "shape.batch: should be a valid integer, not 16.0"),
        ("  seq: 1024\n", "", "shape.seq: is missing"),
        ("  save: hidden", "  saves: hidden", "shape.saves: no such field"),
        ("  units: 8", "  units: true", "tiling.units: should be a valid integer, not True"),
        ("grid: [12, 2, 1]", "grid: [12, 2]", "launch.grid"),
        ("where: gpu", "where: moon", "validation.where: should be 'emulator' or 'gpu', not 'moon'"),
        ("median_ms: 0.37", "median_ms: fast", "measured.median_ms: should be a valid number, not 'fast'"),
        ("source: lstm.cu", "source: ../lstm.cu", "files.source: is not well formed: '../lstm.cu'"),
        ("cubin: lstm.cubin", "cubin: /etc/passwd", "files.cubin: is not well formed: '/etc/passwd'"),
        (f"schema_version: {SCHEMA}", "schema_version: one", f"schema_version: should be {SCHEMA}, not 'one'"),
        ("direction: forward", "direction: sideways", "direction: should be 'forward' or 'backward', not 'sideways'"),
    ],
)
def test_fields_that_are_wrong_are_named(saved: Path, old: str, new: str, line: str) -> None:
    lines = edited(saved, old, new).splitlines()
    assert lines[0] == f"{saved} is no valid configuration:"
    assert any(complained.strip().startswith(line) for complained in lines[1:])
    assert len(lines) <= 3


def test_every_wrong_field_gets_a_line(saved: Path) -> None:
    text = saved.read_text().replace("gpu: h200\n", "").replace("  seq: 1024", "  sequence: 1024", 1)
    saved.write_text(text)
    lines = [line.strip() for line in complaint(saved).splitlines()[1:]]
    assert sorted(lines) == ["gpu: is missing", "shape.seq: is missing", "shape.sequence: no such field"]


def test_a_shape_that_makes_no_sense(saved: Path) -> None:
    assert "batch must be an integer of at least 1" in edited(saved, "  batch: 16\n", "  batch: 0\n")


@pytest.mark.parametrize("name", ["lstm.cu", "lstm.cubin"])
def test_files_beside_it_must_be_there_and_the_same(saved: Path, name: str) -> None:
    read = read_source if name == "lstm.cu" else read_cubin
    file = saved.parent / name
    file.write_bytes(file.read_bytes() + b"\n")
    assert re.search(rf"{name} is not the file that lstm.yaml was written with", complaint(saved))
    with pytest.raises(ConfigError, match="sha256 differs"):
        read(saved)
    file.unlink()
    assert f"needs {name} beside it" in complaint(saved)
    with pytest.raises(ConfigError, match="No such file"):
        read(saved)


def test_places_where_nothing_can_be_saved(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.yaml").mkdir()
    for path, what in (
        (tmp_path / "lstm.json", r"\.yaml"),
        (tmp_path / "file" / "lstm.yaml", "not a folder"),
        (tmp_path / "folder.yaml", "is a folder"),
    ):
        with pytest.raises(ConfigError, match=what):
            check_output(path)
        with pytest.raises(ConfigError, match=what):
            make().save(path, SOURCE, BINARY)
    check_output(tmp_path / "new" / "folder" / "lstm.yml")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.yaml"]


def test_a_read_only_folder_is_noticed_before_and_after() -> None:
    with unprivileged_folder() as folder:
        folder.chmod(0o555)
        drop_privileges()
        for attempt in (check_output, lambda path: make().save(path, SOURCE, BINARY)):
            with pytest.raises(ConfigError, match="no permission to write"):
                attempt(folder / "new" / "lstm.yaml")
        assert not list(folder.iterdir())


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_config import *
source = Source("//" + "x" * 5000, "kernel", "sm_90a")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    make().save(Path(sys.argv[1]), source, BINARY)
except ConfigError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_configuration(saved: Path) -> None:
    before = {file.name: file.read_bytes() for file in saved.parent.iterdir()}
    output, _ = start(FULL_DISK, saved).communicate(timeout=60)
    assert output.startswith(f"cannot write {saved}: ")
    assert {file.name: file.read_bytes() for file in saved.parent.iterdir()} == before
    assert load_config(saved).gpu == "h200"


def test_no_file_of_another_configuration_is_overwritten(saved: Path) -> None:
    moved = saved.with_name("first.yaml")
    saved.rename(moved)
    source, binary = replace(SOURCE, text=SOURCE.text + "// other\n"), replace(BINARY, cubin=BINARY.cubin + b"1")
    make().save(saved, source, binary)
    assert (read_source(moved), read_cubin(moved)) == (SOURCE, BINARY.cubin)
    assert (read_source(saved), read_cubin(saved)) == (source, binary.cubin)
    assert load_config(saved).files.source in saved.read_text().splitlines()[3]
    copied = saved.with_name("copied.yaml")
    copied.write_text(saved.read_text())
    third = replace(SOURCE, text=SOURCE.text + "// third\n")
    make().save(saved, third, BINARY)
    assert [read_source(path) for path in (moved, copied, saved)] == [SOURCE, source, third]


def test_a_foreign_source_stays_and_a_foreign_yaml_is_refused_beforehand(tmp_path: Path) -> None:
    foreign = tmp_path / "lstm.cu"
    foreign.write_text("// mine\n")
    path = tmp_path / "lstm.yaml"
    make().save(path, SOURCE, BINARY)
    assert foreign.read_text() == "// mine\n"
    assert read_source(path) == SOURCE
    make().save(path, SOURCE, BINARY)
    assert len(list(tmp_path.iterdir())) == 4
    path.write_text("lstm: is mine\n")
    for attempt in (check_output, lambda path: make().save(path, SOURCE, BINARY)):
        with pytest.raises(ConfigError, match="is no tuned configuration, so it is not replaced"):
            attempt(path)
    assert path.read_text() == "lstm: is mine\n"
