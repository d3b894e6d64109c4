"""Files that hold anything: bounded reads, YAML whose aliases stand for more than a memory holds, temporary folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from constrint import ConstrintError, read_problem
from constrint.documents import MOST_REPEATED, TooLarge, load_yaml, read_bounded, read_text
from kernelgen.cells import load_cell
from kernelgen.errors import CellError, ConfigError, ProfileError
from kernelgen.hardware.profile import load_profile
from kernelgen.records.config_reading import load_config
from kernelgen.temporary import YOUNG_SECONDS, sweep

pytestmark = pytest.mark.unit

BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
WIDE = f"a: &a [{', '.join('1' * 200)}]\nb: [{', '.join(['*a'] * (MOST_REPEATED // 200 + 1))}]\n"
LOOP = "a: &a [*a]\n"


def test_a_read_ends_at_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one\r\ntwo\r")
    assert read_bounded(file, 9) == b"one\r\ntwo\r"
    assert read_text(file, 9) == "one\ntwo\n"
    for path, most in ((file, 8), ("/dev/zero", 1000)):
        with pytest.raises(TooLarge, match=f"more than {most:,} bytes"):
            read_bounded(path, most)


def test_a_pipe_is_read_up_to_the_bound(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except BrokenPipeError:
                pass

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(TooLarge):
        read_bounded(pipe, 1 << 20)
    writer.join(60)
    assert not writer.is_alive()


def test_aliases_work_until_they_stand_for_too_much() -> None:
    assert load_yaml("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}
    assert load_yaml("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n")["b"] == {"x": 1, "y": 2}
    assert load_yaml("") is None


@pytest.mark.parametrize(("text", "what"), [(BOMB, "aliases"), (WIDE, "aliases"), (LOOP, "holds itself")])
def test_every_reader_of_yaml_refuses_a_bomb(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(text)
    with pytest.raises(ConstrintError, match=what):
        read_problem(file)
    with pytest.raises(ConfigError, match=what):
        load_config(file)
    with pytest.raises(ProfileError, match=what):
        load_profile(file)


def test_no_reader_goes_on_for_ever(tmp_path: Path) -> None:
    for name, read, error in (
        ("zero.yaml", load_config, ConfigError),
        ("zero.yaml", load_profile, ProfileError),
        ("zero.py", load_cell, CellError),
        ("zero.txt", read_problem, ConstrintError),
    ):
        file = tmp_path / name
        if not file.is_symlink():
            file.symlink_to("/dev/zero")
        with pytest.raises(error, match="more than"):
            read(str(file) if name.endswith(".py") else file)  # type: ignore[operator]


MAKER = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from kernelgen.temporary import temporary_folder
with temporary_folder("test") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_the_folder_of_a_killed_process_is_swept_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = []
    for maker in makers:
        assert maker.stdout is not None
        folders.append(Path(maker.stdout.readline().strip()))
    old = time.time() - 2 * YOUNG_SECONDS
    (tmp_path / "tilesmith-foreign").mkdir()
    for folder in (*folders, tmp_path / "tilesmith-foreign"):
        os.utime(folder, (old, old))
    makers[0].send_signal(signal.SIGKILL)
    makers[0].communicate()
    sweep(tmp_path)
    assert [folder.exists() for folder in folders] == [False, True]
    assert (tmp_path / "tilesmith-foreign").exists()
    makers[1].kill()
    makers[1].communicate()
