"""A GPU's limits as words for constraints, and the example spaces that use them."""

from __future__ import annotations

import doctest
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pages import blocks

from constrint import ConstrintError, load_space, read_problem
from constrint.documents import load_yaml
from constrint.evaluate import evaluate
from constrint.python_text import parse_number
from kernelgen.commands import main
from kernelgen.hardware.profile import WARP, Profile, load_profile, profile_names
from kernelgen.hardware.vocabulary import NUMBERS, vocabulary

pytestmark = pytest.mark.unit

SPACES = Path(__file__).parents[2] / "examples" / "spaces"


@pytest.mark.parametrize("name", profile_names())
def test_blocks_per_sm_is_the_occupancy_of_the_profile(name: str) -> None:
    gpu, rng = load_profile(name), random.Random(name)
    words = vocabulary(gpu)
    blocks = parse_number("blocks_per_sm(r, s, t)", ["r", "s", "t"], "", words)
    waves = parse_number("waves(1000, r, s, t)", ["r", "s", "t"], "", words)
    for _ in range(200):
        r, t = rng.randint(0, gpu.registers_per_thread + 8), rng.randint(1, gpu.threads_per_block + 33)
        s = rng.choice([0, 1, gpu.shared_memory_per_block, rng.randint(0, gpu.shared_memory_per_block + 999)])
        fit = gpu.occupancy(t, r, s)
        assert evaluate(blocks, {"r": r, "s": s, "t": t}) == fit, (r, s, t)
        expected = -(-1000 // (fit * gpu.multiprocessors)) if fit else None
        assert evaluate(waves, {"r": r, "s": s, "t": t}) == expected


def test_what_a_block_takes() -> None:
    words = vocabulary(load_profile("h200"))

    def value(text: str) -> object:
        return evaluate(parse_number(text, [], "", words), {})

    assert value("registers_of_block(65, 96)") == 72 * 32 * 4
    assert value("shared_memory_of_block(1000)") == 2048
    assert value("max_shared_memory_per_block") == 232448
    assert value("warp_size * max_warps_per_sm == max_threads_per_sm") == 1
    assert set(NUMBERS.values()) <= set(Profile.model_fields)


def by_hand(space: dict[str, Any], gpu: Profile) -> int:
    """The number of configurations, by Python's own evaluation and ``Profile.occupancy``."""
    names: dict[str, Any] = {word: getattr(gpu, field) for word, field in NUMBERS.items()} | {"warp_size": WARP}
    names["blocks_per_sm"] = lambda registers, shared, threads: gpu.occupancy(threads, registers, shared)
    names["waves"] = lambda blocks, *block: -(-blocks // (names["blocks_per_sm"](*block) * gpu.multiprocessors))
    definitions = {name: compile(text, name, "eval") for name, text in space["definitions"].items()}
    restrictions = [compile(text, text, "eval") for text in space["restrictions"]]
    found = 0
    for row in itertools.product(*space["tune_params"].values()):
        known = names | dict(zip(space["tune_params"], row, strict=True))
        for name, code in definitions.items():
            known[name] = eval(code, {}, known)  # of the examples of this repository
        found += all(eval(code, {}, known) for code in restrictions)
    return found


@pytest.mark.parametrize("gpu", ["h200", "t4"])
@pytest.mark.parametrize("name", ["attention", "gemm", "stencil"])
def test_the_examples_have_the_configurations_that_python_finds(name: str, gpu: str) -> None:
    file = SPACES / f"{name}.yaml"
    expected = by_hand(load_yaml(file.read_text()), load_profile(gpu))
    assert expected > 100
    assert solve(file, "--count", "--gpu", gpu) == {"status": "feasible", "count": expected}


def solve(file: Path, *more: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["solve", str(file), "--json", *more], prog_name="tilesmith")
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    del answer["seconds"]
    return answer


def test_every_example_is_tested() -> None:
    assert {path.stem for path in SPACES.iterdir()} == {"attention", "gemm", "stencil"}


def test_an_objective_may_name_limits_and_definitions() -> None:
    found = solve(SPACES / "gemm.yaml", "--best", "max_registers_per_thread - registers", "--maximize")
    assert found["objective"] == 199
    assert solve(SPACES / "stencil.yaml", "--gpu", "l4")["status"] == "feasible"


GEMM = (SPACES / "gemm.yaml").read_text()
WISHES = "  - block_m * block_n >= 256 * 128\n  - 2 <= blocks_per_sm(registers, shared_bytes, threads)\n"


def test_a_clash_names_the_limit_with_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / "wishes.yaml"
    file.write_text(GEMM + WISHES)
    text = "2 <= blocks_per_sm(registers, shared_bytes, threads)"
    found = solve(file, "--explain")
    registers = "registers, 65,536 per multiprocessor and 255 per thread"
    assert found["core"] == ["block_m * block_n >= 256 * 128", f"{text} [h200: {registers}]"]
    assert found["nearest"] == [{"most": 16384}, {"most": 1}]
    found = solve(file, "--explain", "--gpu", "t4")
    shared = "shared memory, 65,536 bytes per multiprocessor and 65,536 per block"
    assert found["core"][1] == f"{text} [t4: {shared}]"
    file.write_text(GEMM + "  - block_k * stages >= 700\n")
    result = CliRunner().invoke(main, ["solve", str(file), "--explain", "--gpu", "a100-40gb"], prog_name="tilesmith")
    assert result.output.splitlines()[1:] == [
        "  shared_bytes <= max_shared_memory_per_block [a100-40gb: max_shared_memory_per_block = 166,912] (the others "
        "allow at least 196,608)",
        "  block_k * stages >= 700 (the others allow at most 640)",
    ]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def error(text: str, *more: str) -> str:
        file = tmp_path / "space.yaml"
        file.write_text(text)
        result = CliRunner().invoke(main, ["solve", str(file), *more], prog_name="tilesmith")
        assert result.exit_code in (1, 2), result.output
        assert "Traceback" not in result.output
        return str(result.stderr)

    assert "did you mean h200" in error(GEMM.replace("gpu: h200", "gpu: h20"))
    assert "must be the name of a GPU, not [1]" in error(GEMM.replace("gpu: h200", "gpu: [1]"))
    assert "unknown name 'warp_size'" in error(GEMM.replace("gpu: h200\n", "gpu: null\n"))
    assert "takes 3: registers, shared_memory, threads" in error(
        GEMM.replace("shared_bytes, threads) >=", "threads) >=")
    )
    assert "is a parameter and a definition" in error(GEMM.replace("  threads:", "  stages:"))
    assert "definitions in" in error("tune_params: {a: [1]}\ndefinitions: [a]\n")
    assert "--gpu is for spaces" in error("{'ConfigurationSpace': {'TuningParameters': []}}", "--gpu", "h200")


def test_the_page_shows_what_is_so() -> None:
    page = SPACES.parents[1] / "docs" / "hardware_limits.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0
    (shown,) = [block for block in blocks(page.read_text()) if block.title]
    assert load_yaml(shown.text) == {
        key: value
        for key, value in load_yaml((SPACES.parents[1] / (shown.title or "")).read_text()).items()
        if key != "name"
    }
    words = {word for word in NUMBERS if f"`{word}`" in page.read_text()}
    assert words == set(NUMBERS)


def test_spaces_are_read_from_python_with_the_limits_of_a_gpu() -> None:
    words = vocabulary(load_profile("l4"))
    space = {"tune_params": {"tile": [16, 32, 64, 128, 256]}, "restrictions": ["8 * tile**2 <= shared_memory_per_sm"]}
    assert load_space(space, vocabulary=words).count() == 3
    with pytest.raises(ConstrintError, match="unknown name"):
        load_space(space)
    assert read_problem(SPACES / "gemm.yaml", lambda document: vocabulary(load_profile(document["gpu"]))).count() > 100
    # A parameter of that name is what is meant.
    own = {"tune_params": {"multiprocessors": [1, 2, 999]}, "restrictions": ["multiprocessors > 100"]}
    assert load_space(own, vocabulary=words).solve().solution == {"multiprocessors": 999}
