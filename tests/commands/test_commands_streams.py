"""Output streams that are closed, full or of few letters, and Ctrl-C at any moment: a status, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ELMAN, ROOT

pytestmark = pytest.mark.unit

START = f"{sys.executable} -m kernelgen.commands"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell; ``tilesmith`` in it is the command."""
    line = line.replace("tilesmith", START)
    whole = {**os.environ, **environment}
    return subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, timeout=120, check=False, env=whole)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tilesmith gpus >/dev/full", b"Error: cannot write the output: No space left on device\n"),
        ("tilesmith gpus >&-", b"Error: cannot write the output: Bad file descriptor\n"),
        ("tilesmith --help >/dev/full", b"Error: cannot write the output: No space left on device\n"),
        ("tilesmith gpus show nothing 2>/dev/full", b""),
        ("tilesmith gpus show nothing 2>&-", b""),
        ("tilesmith gpus >&- 2>&-", b""),
    ],
)
def test_an_output_that_cannot_be_written_is_status_2(line: str, message: bytes) -> None:
    done = shell(line)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", message)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_a_full_disk_does_not_hold_is_not_lost_without_a_word(tmp_path: Path, unbuffered: str) -> None:
    """A limit of the file's size is met as the end of a disk is: what fits is written, then nothing."""
    file = tmp_path / "gpus.json"
    done = shell(f"ulimit -f 1; tilesmith gpus --json >{file}", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (2, b"Error: cannot write the output: File too large\n")
    assert file.stat().st_size > 0


def test_a_closed_stderr_takes_nothing_from_the_answer() -> None:
    done = shell("tilesmith plan lstm --gpu h200 -b 1 -t 1 -d 16 --top 1 2>&-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"resident" in done.stdout


def test_an_encoding_with_few_letters_still_prints() -> None:
    done = shell("tilesmith cells show lstm", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u03c3(f)" in done.stdout
    done = shell("tilesmith cells show lstm --json", PYTHONIOENCODING="latin-1")
    assert "σ(f)" in json.loads(done.stdout)["equations"]


ENTER = """
import os, signal, sys
from kernelgen import commands
if len(sys.argv) > 1:
    sys.modules["click"] = None  # stands for the moment of importing it
    class Finder:
        def find_spec(self, name, *_):
            if name == "kernelgen.commands.group":
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, Finder())
commands.entry()
"""


def test_ctrl_c_before_a_command_runs_ends_the_process_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", ENTER, "early"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_module_of_the_current_folder_is_not_run_by_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelgen.device.worker import Worker

    (tmp_path / "queue.py").write_text("import pathlib; pathlib.Path('hacked').touch()\n")
    monkeypatch.chdir(tmp_path)
    with Worker("runners:obey") as worker:
        assert worker.run(("return", 1), 60) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["queue.py"]


LOCKER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


def test_a_locked_store_says_at_once_that_it_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from kernelgen.records.store import Store

    path = tmp_path / "trials.sqlite"
    Store(path).close()
    locker = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert locker.stdout is not None
    assert locker.stdout.readline() == "locked\n"

    import threading

    opened: list[bool] = []
    waiter = threading.Thread(target=lambda: opened.append(not Store(path).read_only))
    waiter.start()
    until = time.monotonic() + 25
    while not caplog.records and time.monotonic() < until:
        time.sleep(0.02)
    (record,) = caplog.records
    assert "another process has locked the store of trials; waiting" in record.getMessage()
    assert not opened
    locker.communicate("go\n", timeout=60)
    waiter.join(60)
    assert opened == [True]


def test_a_quote_in_cxx_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from command_line import refused

    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    monkeypatch.setenv("CXX", "g++ '")
    assert '$CXX is no command: "g++ \'"' in refused(f"tune {ELMAN}")


def test_numbers_that_are_none() -> None:
    from command_line import refused

    digits = "9" * 300
    assert "nan is no number of seconds" in refused(f"tune {ELMAN} --budget nan")
    assert "nan is no number of seconds" in refused("solve x --seconds nan")
    assert "(300 characters) is no number" in refused(f"plan lstm -b {digits} -t 1 -d 16")
    assert "(300 characters) is no number" in refused(f"tune {ELMAN} --budget {digits}")
    assert "is more than 2,147,483,647" in refused(f"solve x --all --limit {10**39}")
    assert "cannot write" in refused(f"tune {ELMAN} -o {'x' * 300}.yaml")
    assert "cannot write" in refused(f"tune {ELMAN} -o {'x' * 250}.yaml")
