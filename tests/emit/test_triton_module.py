"""The exported module of Triton and PyTorch: right in Triton's interpreter, in a process without tilesmith."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import fine, refused, run

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell
from kernelgen.emit.triton_module import Pass, triton_module
from kernelgen.errors import ConfigError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.tuning.plan import plan
from kernelgen.tuning.triton_export import module_of
from kernelgen.verify import reference

pytest.importorskip("triton", reason="Triton is not installed, so no module of its is run")

pytestmark = pytest.mark.emulated

# What somebody does with the files; the interpreter is mended first, for it takes no condition for a mask of a tile.
USER = """
import importlib, json, sys
from kernelgen.verify.interpreter_worker import mend
mend()
import numpy as np, torch
folder = sys.argv[1]
sys.path.insert(0, folder)
sys.modules["kernelgen"] = None  # the files must do without
said = {}
for name in sys.argv[2:]:
    module = importlib.import_module("exported_" + name)
    cell = getattr(module, name)
    arrays = np.load(f"{folder}/given_{name}.npz")
    given = {each: torch.tensor(value, requires_grad=True) for each, value in arrays.items()}
    d_h, d_last = given.pop("d_h").detach(), given.pop("d_last").detach()
    h, last = cell(**given)
    ((h * d_h).sum() + (last * d_last).sum()).backward()
    made = {"h": h, "last": last, **{f"d_{each}": value.grad for each, value in given.items()}}
    with torch.no_grad():
        made["alone"] = cell(given["wx"], given["r"], given["b"])[0]
    np.savez(f"{folder}/made_{name}.npz", **{each: value.detach().numpy() for each, value in made.items()})
    try:
        cell(given["wx"][:, :, :, :, 1:], given["r"], given["b"])
    except ValueError as error:
        said[name] = {"refused": str(error), "configs": len(module.FORWARD)}
print(json.dumps(said))
"""

CELLS = ("lstm", "lstm_peephole", "gru", "slstm", "mgu")
STREAMED = ("slstm", "mgu")
"""Those whose kernels are launched for every step."""
BATCH, SEQ, HEADS, DIM = 3, 4, 2, 20


def given_to(cell: Cell) -> dict[str, np.ndarray[Any, Any]]:
    """What is handed to the function and, in the end, comes back to it."""
    random = np.random.default_rng(3)
    states = (len(cell.states), BATCH, HEADS, DIM)
    shapes = {
        "wx": (BATCH, SEQ, len(cell.input_gates), HEADS, DIM),
        "r": (len(cell.recurrent_gates), HEADS, DIM, DIM),
        "b": (len(cell.bias_gates), HEADS, DIM),
        "initial": states,
        "d_h": (BATCH, SEQ, HEADS, DIM),
        "d_last": states,
    }
    return {name: random.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def text_of(cell: Cell, streamed: bool) -> str:
    """A module by the model; streamed: of the kernels that large heads have."""
    shape, profile = Shape(BATCH, SEQ, HEADS, DIM, "float32"), load_profile("h200")
    if not streamed:
        return module_of(cell, shape, profile, {})
    tile = {"units": 16, "batch_tile": 8, "part_k": 32, "num_warps": 2, "num_stages": 2}
    half = Pass(tile, [{**tile, "num_warps": 1}], "a test", streaming=True)
    return triton_module(cell, shape, profile.title, profile.arch, half, half, 2)


def test_tensors_that_are_on_no_gpu_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "exported.py").write_text(text_of(load_cell("elman"), streamed=False))
    user = f"import sys, torch; sys.path.insert(0, {str(tmp_path)!r}); from exported import elman; f = torch.zeros\n"
    user += f"elman(f(1, 1, 1, {HEADS}, {DIM}), f(1, {HEADS}, {DIM}, {DIM}), f(1, {HEADS}, {DIM}))"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", user], env=environment, capture_output=True, text=True, check=False)
    assert "ValueError: Triton's kernels run on a GPU, and these tensors are on cpu" in done.stderr


def test_modules_are_right_forward_and_backward(tmp_path: Path) -> None:
    for name in CELLS:
        text = text_of(load_cell(name), streamed=name in STREAMED)
        (tmp_path / f"exported_{name}.py").write_text(text)
        np.savez(tmp_path / f"given_{name}.npz", **given_to(load_cell(name)))  # type: ignore[arg-type]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", USER, str(tmp_path), *CELLS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for name in CELLS:
        assert said[name]["refused"].startswith("wx must be torch.float32 [3, 4, ")
        assert said[name]["configs"] >= 2
        expected, made = expected_of(load_cell(name)), np.load(tmp_path / f"made_{name}.npz")
        assert set(made) == set(expected)
        for what, value in expected.items():
            error = np.linalg.norm(made[what] - value) / np.linalg.norm(value)
            assert error < 1e-6, f"{name} {what}: {error}"


def expected_of(cell: Cell) -> dict[str, np.ndarray[Any, Any]]:
    """What the float64 reference makes of it."""
    given = given_to(cell)
    d_h, d_last = given.pop("d_h"), given.pop("d_last")
    passed = reference.forward(cell, **given, keep_gates=True)
    back = reference.backward(cell, **given, d_states=d_h[None], d_last=d_last, result=passed)
    alone = reference.forward(cell, given["wx"], given["r"], given["b"], None)
    made = {"h": passed.states[0], "last": passed.last, "alone": alone.states[0]}
    return made | {"d_wx": back.d_wx, "d_r": back.d_r, "d_b": back.d_b, "d_initial": back.d_initial}


def test_what_is_written_says_what_it_is(tuned: Path, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    fine("export", tuned, "--triton", file)
    text = file.read_text()
    compile(text, str(file), "exec")
    for words in ("h' = tanh(a)", "r        [1, 1, 16, 16]", "triton.autotune(", "register_autograd", "by the model"):
        assert words in text
    for word in ("cuda:", "ptx", "nvidia_", "kernelgen"):
        assert word not in text
    assert ("tanh.approx.f32" in text) is (text.count("DTYPE = torch.bfloat16") == 1)
    fine("export", tuned, "--triton", file)  # its own kind is replaced
    file.write_text("print('mine')\n")
    assert "is there already" in refused("export", tuned, "--triton", file)
    assert "a module is a .py file" in refused("export", tuned, "--triton", tmp_path / "module.txt")
    assert "nobody has validated" not in run("export", tuned, "--triton", tmp_path / "module.txt").stderr


def test_a_tiling_from_before_a_variable_of_its_schedule_is_refused() -> None:
    cell, profile, shape = load_cell("lstm"), load_profile("h200"), Shape(16, 64, 2, 32)
    tiling = plan(cell, shape, profile, top=1, schedules=["triton_resident"])[0]
    older = {name: value for name, value in tiling.values.items() if name != "weights_in_registers"}
    config = SimpleNamespace(schedule="triton_resident", to_tiling=lambda: replace(tiling, values=older))
    with pytest.raises(
        ConfigError, match="tuned before triton_resident had the variables weights_in_registers: tune it"
    ):
        module_of(cell, shape, profile, {"triton_resident": config})  # type: ignore[dict-item]
