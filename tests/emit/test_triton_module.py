"""The exported module of Triton and PyTorch: right in Triton's interpreter, in a process without tilesmith."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import fine, refused

from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.tuning.triton_export import module_of
from kernelgen.verify import reference

pytest.importorskip("triton", reason="Triton is not installed, so no module of its is run")

pytestmark = pytest.mark.emulated

# What somebody does with the file; the interpreter is mended first, for it takes no condition for a mask of a tile.
USER = """
import json, sys
from kernelgen.verify.interpreter_worker import mend
mend()
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
sys.modules["kernelgen"] = None  # the file must do without
import exported
cell = getattr(exported, sys.argv[2])
given = {name: torch.tensor(value, requires_grad=True) for name, value in np.load(sys.argv[1] + "/given.npz").items()}
d_h, d_last = given.pop("d_h").detach(), given.pop("d_last").detach()
h, last = cell(**given)
((h * d_h).sum() + (last * d_last).sum()).backward()
made = {"h": h, "last": last, **{f"d_{name}": value.grad for name, value in given.items()}}
with torch.no_grad():
    made["alone"] = cell(given["wx"], given["r"], given["b"])[0]
np.savez(sys.argv[1] + "/made.npz", **{name: value.detach().numpy() for name, value in made.items()})
try:
    cell(given["wx"][:, :, :, :, 1:], given["r"], given["b"])
except ValueError as error:
    print(json.dumps({"refused": str(error), "configs": len(exported.FORWARD)}))
"""


@pytest.mark.parametrize("name", ["lstm", "lstm_peephole", "gru"])
def test_a_module_is_right_forward_and_backward(name: str, tmp_path: Path) -> None:
    cell, batch, seq, heads, dim = load_cell(name), 3, 4, 2, 20
    text = module_of(cell, Shape(batch, seq, heads, dim, "float32"), load_profile("h200"), {})
    (tmp_path / "exported.py").write_text(text)
    random = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return random.uniform(-0.5, 0.5, shape).astype(np.float32)

    wx, initial = draw(batch, seq, len(cell.input_gates), heads, dim), draw(len(cell.states), batch, heads, dim)
    r, b = draw(len(cell.recurrent_gates), heads, dim, dim), draw(len(cell.bias_gates), heads, dim)
    d_h, d_last = draw(batch, seq, heads, dim), draw(*initial.shape)
    np.savez(tmp_path / "given.npz", wx=wx, r=r, b=b, initial=initial, d_h=d_h, d_last=d_last)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", USER, str(tmp_path), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["refused"].startswith("wx must be torch.float32 [3, 4, ")
    assert said["configs"] >= 2

    passed = reference.forward(cell, wx, r, b, initial, keep_gates=True)
    back = reference.backward(cell, wx, r, b, initial, d_states=d_h[None], d_last=d_last, result=passed)
    alone = reference.forward(cell, wx, r, b, None)
    expected = {"h": passed.states[0], "last": passed.last, "alone": alone.states[0]}
    expected |= {"d_wx": back.d_wx, "d_r": back.d_r, "d_b": back.d_b, "d_initial": back.d_initial}
    made = np.load(tmp_path / "made.npz")
    assert set(made) == set(expected)
    for what, value in expected.items():
        error = np.linalg.norm(made[what] - value) / np.linalg.norm(value)
        assert error < 1e-6, f"{what}: {error}"


def test_what_is_written_says_what_it_is(tuned: Path, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    fine("export", tuned, "--triton", file)
    text = file.read_text()
    compile(text, str(file), "exec")
    for words in ("h' = tanh(a)", "r        [1, 1, 16, 16]", "triton.autotune(", "register_autograd", "by the model"):
        assert words in text
    for word in ("cuda:", "ptx", "nvidia_", "inline_asm", "kernelgen"):
        assert word not in text
    fine("export", tuned, "--triton", file)  # its own kind is replaced
    file.write_text("print('mine')\n")
    assert "is there already" in refused("export", tuned, "--triton", file)
    assert "a module is a .py file" in refused("export", tuned, "--triton", tmp_path / "module.txt")
