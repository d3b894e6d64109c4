"""Calls of the command line with bad input, drawn from a seed: bytes, mutated files, options."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from command_line import own_cell

ROOT = Path(__file__).parent.parent

NUMBERS = [
    *("0", "1", "-1", "2", "3", "7", "16", "33", "64", "129", "1024", "65535", "65537", "2147483647", "2147483648"),
    *("-2147483649", "9" * 19, "9" * 40, "9" * 300, "9" * 5000, "1e3", "1.5", "nan", "inf", "-inf", "0x10", "1_000"),
    *(
        "",
        " ",
        "١٢",
        "µ",
        "\udcff",
        "--",
        "true",
        "None",
        "[1]",
        "{}",
        "*a",
        "&a 1",
        "!!int x",
        "~",
        "'",
        '"',
        "\x1b[2J",
    ),
]
WORDS = [
    *(
        "lstm",
        "elman",
        "gru",
        "lstn",
        "LSTM",
        "h200",
        "t4",
        "a100",
        "auto",
        "nosuch",
        "/dev/null",
        "/dev/zero",
        "/",
        ".",
    ),
    *(
        "float32",
        "bfloat16",
        "float16",
        "bf16",
        "int8",
        "hidden",
        "states",
        "gates",
        "forward",
        "backward",
        "both",
        ".py",
    ),
    *("x.py:Y", ":", "a" * 300, "a" * 5000, "../..", "-", "--help", "\n", "𝔁", "%s%n", "nothing.yaml", "x.yaml/y.yaml"),
]
SHAPE = ("--gpu", "--batch", "--seq", "--heads", "--head-dim", "--dtype", "--save", "--recompute", "--direction")
OPTIONS = {
    "plan": (*SHAPE, "--top", "--json"),
    "tune": (*SHAPE, "--top", "--seeds", "--budget", "--again", "-o"),
    "validate": ("--gpu", "--seeds", "--emulate"),
    "show": (),
    "gpus": ("show", "--json"),
    "cells": ("show", "--json"),
    "solve": ("--count", "--all", "--best", "--maximize", "--explain", "--engine", "--limit", "--seconds", "--json"),
}
PLAIN = {"--gpu": "h200", "--batch": "2", "--seq": "4", "--head-dim": "16"}
PROBLEMS = {
    "txt": "x == [1, 2, 4, 8];\ny == [1, 2, 3];\nx * y <= 12;\nx % y == 0;\nS == 2 * x;\n",
    "json": '{"tune_params": {"a": [1, 2, 3], "b": [1, 2, 4]}, "restrictions": ["a < b or a % 2 == 0"]}\n',
    "yaml": "tune_params:\n  a: [1, 2, 3]\n  b: &b [1, 2, 4]\nrestrictions:\n- a < b\n- a * b <= 8\n",
}


def _mutate_text(draw: random.Random, text: str) -> bytes:
    """A text with one to three places changed."""
    for _ in range(draw.randint(1, 3)):
        lines = text.split("\n")
        at = draw.randrange(len(lines))
        how = draw.randrange(7)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(at, lines[draw.randrange(len(lines))])
        elif how == 2 and ":" in lines[at]:
            lines[at] = lines[at].split(":")[0] + ": " + draw.choice(NUMBERS + WORDS)
        elif how == 3:
            lines[at] = re.sub(r"[-\d.e]+", lambda _: draw.choice(NUMBERS), lines[at], count=1)
        elif how == 4:
            lines[at] = draw.choice(["  ", "\t", "- ", "? ", "&x ", "*x ", "{", "[" * 2000]) + lines[at]
        elif how == 5:
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
        else:
            words = lines[at].split(" ")
            words[draw.randrange(len(words))] = draw.choice(NUMBERS + WORDS)
            lines[at] = " ".join(words)
        text = "\n".join(lines)
    return text.encode("utf-8", errors="surrogateescape")


def _mutate_bytes(draw: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut off, or none of the original at all."""
    how = draw.randrange(4)
    if how == 0:
        return draw.randbytes(draw.choice([0, 1, 10, 3000]))
    if how == 1:
        return data[: draw.randrange(len(data) + 1)]
    if how == 2:
        return data + draw.randbytes(5)
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _mutated(draw: random.Random, text: str) -> bytes:
    return _mutate_text(draw, text) if draw.random() < 0.8 else _mutate_bytes(draw, text.encode())


def _options(draw: random.Random, folder: Path, tuned: Path) -> list[str]:
    command = draw.choice([*OPTIONS, "plan", "nosuch"])
    call = [command]
    known = OPTIONS.get(command, SHAPE)
    if draw.random() < 0.9:
        call.append(draw.choice([*WORDS, "elman", "elman", "elman"]))
    if command in ("plan", "tune"):
        given = dict(PLAIN)
        for name in draw.sample(list(given), draw.randrange(2)):
            given[name] = draw.choice(NUMBERS + WORDS)
        call += [part for pair in given.items() for part in pair]
        call += ["--top", "1"]
    if command == "tune":  # what is right would be tuned, for seconds
        call += [
            "-o",
            draw.choice(["/", "/dev/null", "x.txt", "x" * 300 + ".yaml", "/proc/x.yaml", "/dev/null/x.yaml"]),
        ]
    for _ in range(draw.randint(0 if known else 1, 3)):
        name = draw.choice([*known, "--nosuch"] if known else ["--nosuch"])
        call.append(name)
        if draw.random() < 0.8:
            call.append(draw.choice(NUMBERS + WORDS))
    return call[: draw.randint(1, len(call))] if draw.random() < 0.2 else call


def _config(draw: random.Random, folder: Path, tuned: Path) -> list[str]:
    for file in tuned.parent.iterdir():
        shutil.copy(file, folder / file.name)
    copy = folder / tuned.name
    copy.write_bytes(_mutated(draw, copy.read_text()))
    if draw.random() < 0.1:
        beside = folder / tuned.with_suffix(draw.choice([".cu", ".cubin"])).name
        beside.write_bytes(_mutate_bytes(draw, beside.read_bytes()))
    return draw.choice([["show", str(copy)], ["validate", "--seeds", "1", str(copy)]])


def _profile(draw: random.Random, folder: Path, tuned: Path) -> list[str]:
    file = folder / "mine.yaml"
    file.write_bytes(
        _mutated(draw, (ROOT / "profiles" / draw.choice(["h200", "t4", "l4"])).with_suffix(".yaml").read_text())
    )
    plan = ["plan", "elman", "--gpu", str(file), "-b", "2", "-t", "4", "-d", "16", "--top", "1"]
    return draw.choice([["gpus", "show", str(file)], plan])


def _problem(draw: random.Random, folder: Path, tuned: Path) -> list[str]:
    kind = draw.choice(list(PROBLEMS))
    file = folder / f"problem.{kind}"
    file.write_bytes(_mutated(draw, PROBLEMS[kind]))
    questions = [[], ["--count"], ["--explain"], ["--best", draw.choice(["x", "a", "a * b", *NUMBERS, *WORDS])]]
    question = draw.choice(questions)
    return ["solve", str(file), *question, "--seconds", "2", "--engine", draw.choice(["native", "python"])]


def _cell(draw: random.Random, folder: Path, tuned: Path) -> list[str]:
    file = own_cell(folder)
    text = file.read_text()
    pieces = ["", "(", ")", "'", ",", "0", "None", "µ", "\n", "\t", "\0", " @ ", "9" * 5000]
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice(pieces) + text[at + 1 :]
    file.write_text(text)
    return ["cells", "show", draw.choice([str(file), f"{file}:LEAKY", f"{file}:"])]


KINDS: Sequence[Callable[[random.Random, Path, Path], list[str]]] = (
    _options,
    _config,
    _config,
    _profile,
    _problem,
    _cell,
)


def draw_call(seed: int, folder: Path, tuned: Path) -> list[str]:
    """The arguments of one call, and in ``folder`` the files that it reads. tuned: a sound configuration."""
    draw = random.Random(seed)
    return KINDS[seed % len(KINDS)](draw, folder, tuned)
