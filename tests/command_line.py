"""How tests run commands: in this process or in one of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from kernelgen.commands import main

ROOT = Path(__file__).parent.parent
LSTM = "lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 --dtype bfloat16"
ELMAN = "elman --gpu h200 --batch 2 --seq 4 --heads 1 --head-dim 16"
ERROR = "Error: "


def run(arguments: str, *more: object) -> Result:
    """Run a command in this process. Nothing but SystemExit may come out of it."""
    result = CliRunner().invoke(main, [*arguments.split(), *map(str, more)], prog_name="tilesmith")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def fine(arguments: str, *more: object) -> str:
    """Run a command that must succeed; its stdout."""
    result = run(arguments, *more)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(arguments: str, *more: object) -> str:
    """Run a command that must be refused: status 2, nothing on stdout, one message on stderr; the message."""
    result = run(arguments, *more)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count(ERROR) == 1
    assert "Traceback" not in result.stderr
    return result.stderr.split(ERROR, 1)[1]


def process(*arguments: object, module: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    start = [sys.executable, "-m", "kernelgen.commands"] if module else [sys.executable, "cli.py"]
    return subprocess.run(
        [*start, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **options
    )


def own_cell(folder: Path) -> Path:
    """Write a cell file that defines LEAKY; its path."""
    file = folder / "mine.py"
    file.write_text(
        "from kernelgen.cells.language import Cell, Gate, tanh\n"
        "LEAKY = Cell('leaky', 'Leaky', 'none', ('h',), (Gate('a'),), "
        "lambda gate, state: {'h': 0.5 * state.h + 0.5 * tanh(gate.a)})\n"
    )
    return file
