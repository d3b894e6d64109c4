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
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.tiling import Resources, Tiling
from kernelgen.records.config import SCHEMA, CellRecord, TunedConfig
from kernelgen.records.config_files import check_output
from kernelgen.records.config_reading import load_config, read_cubins, read_program
from kernelgen.records.trial import Measurement, Trial, Validation

pytestmark = pytest.mark.unit

SOURCE = Source(
    '// "µ"\nextern "C" __global__ void kernel(float* a) { a[0] = 1; }\n', "kernel", "sm_90a", ("a",), ("a",)
)
LAUNCH = LaunchRule(("heads", "cdiv(batch, 8)", "1"), 256, 4096)
PROGRAM = Program("forward", KernelCall(SOURCE, LAUNCH), num_stages=6)
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
    trial: Trial = TRIAL, cell: CellRecord | None = None, tiling: Tiling = TILING, program: Program = PROGRAM
) -> TunedConfig:
    return TunedConfig.of(
        trial,
        cell=cell or CellRecord(name="lstm", fingerprint="f" * 64),
        tiling=tiling,
        program=program,
        binaries=[BINARY for _ in program.calls],
    )


def other(text: str) -> Program:
    """The program with a longer source."""
    return replace(PROGRAM, main=replace(PROGRAM.main, source=replace(SOURCE, text=SOURCE.text + text)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "lstm.yaml"
    make().save(path, PROGRAM, [BINARY])
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
    written = make().save(path, PROGRAM, [BINARY])
    assert sorted(file.name for file in path.parent.iterdir()) == ["lstm.cu", "lstm.cubin", "lstm.yaml"]
    assert load_config(path) == written
    assert read_program(path) == PROGRAM
    assert read_cubins(path) == (BINARY.cubin,)
    assert written.to_tiling() == TILING
    assert written.shape == TRIAL.shape
    assert written.main.launch == LAUNCH
    assert written.measured == TRIAL.measurement
    assert written.validation == TRIAL.validation
    assert written.main.reported == BINARY.report
    assert written.model.total_ms == pytest.approx(0.3125 * 1.024)


def test_without_a_gpu_there_is_no_measured_time(tmp_path: Path) -> None:
    path = tmp_path / "lstm.yaml"
    make(TRIAL.replace(measurement=None, status="valid")).save(path, PROGRAM, [BINARY])
    assert load_config(path).measured is None


def test_what_nobody_validated_is_no_tuned_config() -> None:
    with pytest.raises(ConfigError, match="not validated"):
        make(TRIAL.replace(validation=None))


def test_a_person_can_read_it(saved: Path) -> None:
    text = saved.read_text()
    assert text.startswith("# A forward kernel tuned by tilesmith: lstm at B=16 T=1024 12x64 bfloat16 on h200.\n")
    assert 'kernelgen.load("lstm.yaml")' in text
    assert len(text.splitlines()) < 90
    assert "    grid: [heads, 'cdiv(batch, 8)', '1']\n" in text
    keys = list(yaml.safe_load(text))
    assert keys == [name for name in TunedConfig.model_fields if name not in ("between", "products")]
    assert "!!" not in text


def test_saving_again_replaces_all_three(saved: Path) -> None:
    make().save(saved, other("// more\n"), [BINARY])
    assert read_program(saved) == other("// more\n")
    assert len(list(saved.parent.iterdir())) == 3


def test_moved_together_they_still_work(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("lstm.cu", "lstm.cubin"):
        (saved.parent / name).rename(folder / name)
    saved.rename(folder / "renamed.yaml")
    assert read_cubins(folder / "renamed.yaml") == (BINARY.cubin,)
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
    make(cell=CellRecord.of(cell, spec)).save(path, PROGRAM, [BINARY])
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
        make().save(path, PROGRAM, [BINARY])
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


def older(saved: Path, version: int, **changes: str) -> None:
    """Write the configuration as an older schema did, with some of its fields."""
    files = load_config(saved).main.files
    fields = {
        "schema_version": str(version),
        "shape": "{batch: 16, seq: 1024, heads: 12, head_dim: 64, dtype: bfloat16, save: hidden, recompute: false}",
        "direction": "forward",
        **changes,
    }
    text = OLDER.format(source_sha256=files.source_sha256, cubin_sha256=files.cubin_sha256)
    text += "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    saved.write_text(text)


OLDER = """\
format: tilesmith-config
created: '2026-11-26T04:01:57+00:00'
cell: {{name: lstm, fingerprint: ffff}}
gpu: h200
arch: sm_90a
schedule: resident
tiling: {{units_per_warp: 8, batch_tile: 8, prefetch: 6}}
launch: {{grid: [12, 2, 1], block: 256, shared_memory: 4096, cluster: 1, cooperative: false}}
entry: kernel
arguments: [a, states, others, last, gates]
predicted: {{registers: 120, shared_memory: 4096, threads: 256, blocks: 24, blocks_per_sm: 2}}
reported: {{registers: 118, stack: 0, spill_stores: 0, spill_loads: 0, static_shared_memory: 0, barriers: 2}}
model: {{clocks_per_step: 610.5, us_per_step: 0.3125, total_ms: 0.32}}
measured: {{median_ms: 0.37, p10_ms: 0.365, p90_ms: 0.381, runs: 100}}
validation: {{where: gpu, seeds: 3, batch: 16, seq: 1024, tolerance: 0.001, errors: {{h: 0.0003, last: 1.0e-05}}}}
versions: {{tilesmith: 0.1.0, compiler: NVRTC 13.5, python: 3.11.7, numpy: 2.4.6}}
source_hash: '1111111111111111111111111111111111111111111111111111111111111111'
files: {{source: lstm.cu, source_sha256: {source_sha256}, cubin: lstm.cubin, cubin_sha256: {cubin_sha256}}}
"""
"""A configuration as schemas 1 to 4 had it, but for what older() adds."""

BEFORE_RECOMPUTE = "{batch: 16, seq: 1024, heads: 12, head_dim: 64, dtype: bfloat16, save: hidden}"


@pytest.mark.parametrize(
    ("version", "changes"),
    [(1, {"direction": "", "shape": BEFORE_RECOMPUTE}), (2, {"shape": BEFORE_RECOMPUTE}), (3, {}), (4, {})],
)
def test_a_file_of_an_older_schema_is_read(saved: Path, version: int, changes: dict[str, str]) -> None:
    older(saved, version, **changes)
    config = load_config(saved)
    assert (config.schema_version, config.direction, config.shape.recompute) == (SCHEMA, "forward", False)
    program = read_program(saved)
    assert program.main.launch == LAUNCH
    assert program.main.source.writes == ("states", "others", "last", "gates")
    assert program.num_stages == 6
    assert read_cubins(saved) == (BINARY.cubin,)
    config.save(saved, program, [BINARY])
    assert load_config(saved).calls == config.calls
    assert "direction: forward" in saved.read_text()


@pytest.mark.parametrize(
    ("version", "changes", "words"),
    [
        (3, {"direction": "backward"}, "before version 5 does not make the gradients of R and b"),
        (4, {"direction": "backward"}, "before version 5 does not make the gradients of R and b"),
        (
            3,
            {"shape": BEFORE_RECOMPUTE.replace("hidden", "gates")},
            "before version 4 kernels that save gates for training",
        ),
    ],
)
def test_an_older_kernel_for_training_is_to_be_tuned_again(
    saved: Path, version: int, changes: dict[str, str], words: str
) -> None:
    older(saved, version, **changes)
    message = complaint(saved)
    assert f"has schema version {version}: " in message
    assert words in message
    assert "Tune it again" in message


@pytest.mark.parametrize("missing", ["launch", "files", "entry", "arguments", "reported", "tiling", "shape"])
def test_an_older_file_without_a_field_says_which(saved: Path, missing: str) -> None:
    older(saved, 4)
    saved.write_text(re.sub(rf"^{missing}: .*\n", "", saved.read_text(), flags=re.MULTILINE))
    assert f"{missing}: is missing" in complaint(saved)


def test_a_backward_configuration_has_its_calls_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "lstm_backward.yaml"
    trial, tiling = TRIAL.replace(schedule="resident_backward"), replace(TILING, schedule="resident_backward")
    follows = KernelCall(replace(SOURCE, text="// sums\n", entry="tilesmith_sums"), LaunchRule(("7", "1", "1"), 64, 0))
    program = Program("backward", PROGRAM.main, (follows,), {"P": "cdiv(batch, 8)"}, 6)
    make(trial, tiling=tiling, program=program).save(path, program, [BINARY, BINARY])
    names = ["lstm_backward", "lstm_backward_sums"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        [path.name, *(f"{name}{suffix}" for name in names for suffix in (".cu", ".cubin"))]
    )
    assert path.read_text().startswith("# A backward kernel tuned by tilesmith: lstm at ")
    assert load_config(path).direction == "backward"
    assert read_program(path) == program
    assert read_cubins(path) == (BINARY.cubin, BINARY.cubin)
    make(trial, tiling=tiling, program=program).save(path, program, [BINARY, BINARY])
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / "lstm_backward_sums.cu").unlink()
    assert "needs lstm_backward_sums.cu beside it" in complaint(path)


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
        ("grid: [heads, 'cdiv(batch, 8)', '1']", "grid: [heads, '1']", "calls.0.launch.grid"),
        ("'cdiv(batch, 8)'", "'cdiv(rows, 8)'", "calls.0.launch.grid.y: the rule 'cdiv(rows, 8)' names 'rows'"),
        ("'cdiv(batch, 8)'", "'batch.real'", "calls.0.launch.grid.y: the rule 'batch.real' may hold integers"),
        ("'cdiv(batch, 8)'", "batch // 17", "calls.0.launch.grid.y: must be at least 1, not 0"),
        ("axes: {}", "axes: {P: 1 //}", "axes.P: '1 //' is no rule"),
        ("writes: [a]", "writes: [a, b]", "calls.0.writes: 'b' is none of its arguments"),
        ("arguments: [a]", "arguments: [a, a]", "calls.0.arguments: 'a' comes twice"),
        ("num_stages: 6", "num_stagez: 6", "num_stagez: no such field; did you mean num_stages?"),
        ("num_stages: 6", "num_stages: 0", "num_stages: must be at least 1, not 0"),
        ("where: gpu", "where: moon", "validation.where: should be 'emulator' or 'gpu', not 'moon'"),
        ("median_ms: 0.37", "median_ms: fast", "measured.median_ms: should be a valid number, not 'fast'"),
        ("source: lstm.cu", "source: ../lstm.cu", "calls.0.files.source: is not well formed: '../lstm.cu'"),
        ("cubin: lstm.cubin", "cubin: /etc/passwd", "calls.0.files.cubin: is not well formed: '/etc/passwd'"),
        (f"schema_version: {SCHEMA}", "schema_version: one", f"schema_version: should be {SCHEMA}, not 'one'"),
        ("direction: forward", "direction: sideways", "direction: should be 'forward' or 'backward', not 'sideways'"),
    ],
)
def test_fields_that_are_wrong_are_named(saved: Path, old: str, new: str, line: str) -> None:
    lines = edited(saved, old, new).splitlines()
    assert lines[0] == f"{saved} is no valid configuration:"
    assert any(complained.strip().startswith(line) for complained in lines[1:])
    assert len(lines) <= 3


@pytest.mark.parametrize("count", [0, 9])
def test_a_program_has_a_few_calls(saved: Path, count: int) -> None:
    fields = yaml.safe_load(saved.read_text())
    fields["calls"] *= count
    saved.write_text(yaml.safe_dump(fields))
    assert f"calls: must be 1 to 8, not {count}" in complaint(saved)


def test_every_wrong_field_gets_a_line(saved: Path) -> None:
    text = saved.read_text().replace("gpu: h200\n", "").replace("  seq: 1024", "  sequence: 1024", 1)
    saved.write_text(text)
    lines = [line.strip() for line in complaint(saved).splitlines()[1:]]
    assert sorted(lines) == ["gpu: is missing", "shape.seq: is missing", "shape.sequence: no such field"]


def test_a_shape_that_makes_no_sense(saved: Path) -> None:
    assert "batch must be an integer of at least 1" in edited(saved, "  batch: 16\n", "  batch: 0\n")


@pytest.mark.parametrize("name", ["lstm.cu", "lstm.cubin"])
def test_files_beside_it_must_be_there_and_the_same(saved: Path, name: str) -> None:
    read = read_program if name == "lstm.cu" else read_cubins
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
            make().save(path, PROGRAM, [BINARY])
    check_output(tmp_path / "new" / "folder" / "lstm.yml")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.yaml"]


def test_a_read_only_folder_is_noticed_before_and_after() -> None:
    with unprivileged_folder() as folder:
        folder.chmod(0o555)
        drop_privileges()
        for attempt in (check_output, lambda path: make().save(path, PROGRAM, [BINARY])):
            with pytest.raises(ConfigError, match="no permission to write"):
                attempt(folder / "new" / "lstm.yaml")
        assert not list(folder.iterdir())


FULL_DISK = """
import resource, sys
from pathlib import Path
from test_config import *
program = other("//" + "x" * 5000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    make().save(Path(sys.argv[1]), program, [BINARY])
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
    program, binary = other("// other\n"), replace(BINARY, cubin=BINARY.cubin + b"1")
    make().save(saved, program, [binary])
    assert (read_program(moved), read_cubins(moved)) == (PROGRAM, (BINARY.cubin,))
    assert (read_program(saved), read_cubins(saved)) == (program, (binary.cubin,))
    assert load_config(saved).main.files.source in saved.read_text().splitlines()[3]
    copied = saved.with_name("copied.yaml")
    copied.write_text(saved.read_text())
    third = other("// third\n")
    make().save(saved, third, [BINARY])
    assert [read_program(path) for path in (moved, copied, saved)] == [PROGRAM, program, third]


def test_a_foreign_source_stays_and_a_foreign_yaml_is_refused_beforehand(tmp_path: Path) -> None:
    foreign = tmp_path / "lstm.cu"
    foreign.write_text("// mine\n")
    path = tmp_path / "lstm.yaml"
    make().save(path, PROGRAM, [BINARY])
    assert foreign.read_text() == "// mine\n"
    assert read_program(path) == PROGRAM
    make().save(path, PROGRAM, [BINARY])
    assert len(list(tmp_path.iterdir())) == 4
    path.write_text("lstm: is mine\n")
    for attempt in (check_output, lambda path: make().save(path, PROGRAM, [BINARY])):
        with pytest.raises(ConfigError, match="is no tuned configuration, so it is not replaced"):
            attempt(path)
    assert path.read_text() == "lstm: is mine\n"
