"""validate believes nothing that a configuration says of itself."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import refused, run

from kernelgen.build.cache import program_hash
from kernelgen.errors import ConfigError
from kernelgen.records.config import CellRecord
from kernelgen.records.config_reading import load_config, read_cubins, read_program
from kernelgen.verify.config_check import _changed_since, check_config, find_profile

pytestmark = pytest.mark.unit


@pytest.fixture
def copy(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tuned kernel of one's own to spoil."""
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    for file in tuned.parent.iterdir():
        shutil.copy(file, tmp_path / file.name)
    return tmp_path / tuned.name


def edit(path: Path, pattern: str, new: str) -> None:
    """Replace the one place where a pattern matches whole lines."""
    text, count = re.subn(pattern, new, path.read_text(), flags=re.MULTILINE)
    assert count == 1, pattern
    path.write_text(text)


def rewrite(path: Path, suffix: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file beside a configuration, and renew its sha256."""
    file = path.with_suffix(suffix)
    old = file.read_bytes()
    new = change(old)
    file.write_bytes(new)
    edit(path, hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest())


def remarks(path: Path) -> tuple[str, ...]:
    config = load_config(path)
    return check_config(config, read_program(path), read_cubins(path), find_profile(config)).remarks


def test_what_tune_wrote_holds(copy: Path) -> None:
    assert remarks(copy) == ()


def test_a_cells_file_that_has_changed_since_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own.py"
    file.write_text("VALUE = 1\n")
    record = CellRecord(name="own", fingerprint="f", path="own.py", attribute="OWN", definition="VALUE = 1\n")
    assert _changed_since(record) == []
    file.write_text("VALUE = 2\n")
    assert _changed_since(record)[0].startswith("own.py has changed since")
    file.unlink()
    assert _changed_since(record) == []
    assert _changed_since(CellRecord(name="lstm", fingerprint="f")) == []


@pytest.mark.parametrize(
    ("pattern", "new", "message"),
    [
        (r"^  source_hash: .*$", "  source_hash: " + "f" * 64, r"calls.0.source_hash: is f{64}, where .* imply"),
        (r"^gpu: .*$", "gpu: nosuch", "no profile called 'nosuch'"),
        (r"^arch: .*$", "arch: sm_99", "arch: sm_99, but h200 is sm_90a"),
        (r"^    grid: .*$", "    grid: ['0', '1', '1']", r"calls.0.launch.grid.x: must be at least 1, not 0"),
        (
            r"^    grid: .*$",
            "    grid: ['2', '1', '1']",
            r"launch.grid: is \['2', '1', '1'\], where .* imply \['heads', ",
        ),
        (r"^    block: .*$", "    block: 64", r"calls.0.launch.block: is 64, where"),
        (r"^    cluster: .*$", "    cluster: 2", r"launch.cluster: is 2, where"),
        (r"^    cooperative: .*$", "    cooperative: true", r"launch.cooperative: is True, where"),
        (r"^axes: .*$", "axes: {P: '1'}", r"axes: is {'P': '1'}, where"),
        (r"^num_stages: .*$", "num_stages: 99", r"num_stages: is 99, where"),
        (r"^  writes: .*$", "  writes: [states]", r"calls.0.writes: is \['states'\], where"),
        (r"^  batch: 2\n  seq: 4\n  heads", f"  batch: {10**30}\n  seq: 4\n  heads", "batch times seq must be at most"),
        (r"^  entry: .*$", "  entry: main", "calls.0.entry: is main, where"),
        (r"^  arguments: \[wx, r", "  arguments: [r, wx", "calls.0.arguments: is"),
        (r"^  batch_tile: .*$", "  batch_tile: 0", "batch_tile"),
        (r"^  batch_tile: .*$", "  batch_tile: 5", "batch_tile"),
        (r"^  batch_tile: .*$", "  batch_tile: -4", "tiling.batch_tile: must not be -4"),
        (r"^  num_stages: .*$", "  stages: 2", "tiling: has the variables .* those of the schedule resident are"),
        (r"^tiling:\n(  .*\n)+", "tiling: {}\n", "tiling: has no variables"),
        (r"^schedule: .*$", "schedule: nosuch", "unknown schedule 'nosuch'"),
        (r"^schedule: .*$", "schedule: resident_backward", "direction: forward, but the schedule"),
        (r"^  threads: .*$", "  threads: 999", "predicted.threads: is 999, where"),
        (r"^  blocks: .*$", "  blocks: 999", "predicted.blocks: is 999, where"),
        (r"^    barriers: .*$", "    barriers: 9", "reported.barriers: is 9, where"),
        (r"^  tolerance: .*$", "  tolerance: .nan", "validation.tolerance: must be positive"),
        (r"^  us_per_step: .*$", "  us_per_step: .inf", "model.us_per_step: must be positive, not inf"),
        (r"^  total_ms: .*$", "  total_ms: 7.5", "model.total_ms: 7.5 is not us_per_step"),
        (r"^  seeds: .*$", "  seeds: 0", "validation.seeds: must be at least 1"),
    ],
)
def test_a_field_that_contradicts_the_others_is_refused(copy: Path, pattern: str, new: str, message: str) -> None:
    edit(copy, pattern, new)
    assert re.search(message, refused("validate --seeds 1", copy))


def test_a_binary_that_the_source_does_not_compile_to_is_refused(copy: Path) -> None:
    rewrite(copy, ".cubin", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    assert "is not what NVRTC" in refused("validate --seeds 1", copy)


def test_a_binary_that_is_none_is_refused_even_where_it_cannot_be_compared(copy: Path) -> None:
    rewrite(copy, ".cubin", lambda _: bytes(range(250)) * 20)
    edit(copy, r"^  source_hash: .*$", "  source_hash: " + "f" * 64)
    edit(copy, r"^  compiler: .*$", "  compiler: NVRTC 99.0")
    assert "is no compiled CUDA kernel with an entry tilesmith_forward" in refused("validate --seeds 1", copy)


def test_another_compiler_s_binary_is_said_not_to_have_been_compared(copy: Path) -> None:
    edit(copy, r"^  compiler: .*$", "  compiler: NVRTC 99.0")
    (remark,) = remarks(copy)
    assert remark.startswith("the binary of tilesmith_forward was not compared: it is NVRTC 99.0's, and here is NVRTC")


@pytest.mark.emulated
def test_an_older_generator_s_kernel_is_said_to_be_one_and_may_be_right(copy: Path) -> None:
    rewrite(copy, ".cu", lambda text: text.replace(b"// Generated by tilesmith.", b"// Made by tilesmith."))
    for margin in ("", "  "):  # of the program, and of its only call
        edit(copy, rf"^{margin}source_hash: .*$", f"{margin}source_hash: {program_hash(read_program(copy))}")
    result = run("validate --seeds 1", copy)
    assert result.exit_code == 0, result.output
    assert "the source is not what this tilesmith generates for this tiling" in result.stderr
    assert "valid in the emulator" in result.stdout


def test_a_source_that_was_changed_after_compiling_is_no_proof_of_the_binary(copy: Path) -> None:
    rewrite(copy, ".cu", lambda text: text.replace(b"__launch_bounds__(Kernel::threads, 1)", b""))
    generated, hashed, compared = remarks(copy)
    assert "not what this tilesmith generates" in generated
    assert hashed.startswith("source_hash is not that of the sources")
    assert (
        compared
        == "the binary of tilesmith_forward was not compared: the source, or tilesmith's headers, have changed "
        "since it was compiled"
    )


def test_other_predictions_are_a_newer_model_s(copy: Path) -> None:
    now = load_config(copy).predicted.registers
    edit(copy, r"^predicted: .*\n|^predicted:\n  registers: .*$", f"predicted:\n  registers: {now + 1}")
    assert remarks(copy) == (f"predicted.registers is {now + 1}; the model of this tilesmith says {now}",)


def test_a_profile_of_one_s_own_is_given_by_its_file(copy: Path, tmp_path: Path) -> None:
    from kernelgen.paths import profiles

    mine = tmp_path / "mine.yaml"
    mine.write_text(re.sub(r"^name: .*$", "name: mine", (profiles() / "h200.yaml").read_text(), flags=re.MULTILINE))
    edit(copy, r"^gpu: .*$", "gpu: mine")
    config = load_config(copy)
    with pytest.raises(ConfigError, match="give its file with --gpu"):
        find_profile(config)
    assert find_profile(config, str(mine)).name == "mine"
    with pytest.raises(ConfigError, match="is the profile of 'a100-80gb'"):
        find_profile(config, "a100-80gb")
