"""The C++ core: that it is there, agrees with its Python twin beyond small problems, and can be stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice, pairwise
from pathlib import Path

import pytest
from random_problems import random_problem
from work import Ticking

import constrint.core
import constrint.cpsat
import constrint.engine
from constrint import Problem, TimeLimit, divides, has_core
from constrint.expr import variable
from constrint.native import SAFE, fits
from constrint.presolve import presolve
from constrint.search import PythonSearch

pytestmark = pytest.mark.unit
needs_core = pytest.mark.skipif(not has_core(), reason="the C++ core is not built")


def test_the_core_is_built_where_a_compiler_is() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        pytest.skip("no C++ compiler")
    assert has_core(), "constrint._core_native is missing: run `python setup.py build_ext --inplace` and see why"


def stencil() -> Problem:
    """A space of 8 parameters and 46,080,000 combinations, made for this test."""
    p = Problem("stencil")
    bx = p.variable("bx", [1, 2, 4, 8, *range(16, 513, 16)])
    by = p.variable("by", [1, 2, 4, 8, 16, 32])
    tx, ty = p.variable("tx", range(1, 9)), p.variable("ty", range(1, 9))
    steps = p.variable("steps", range(1, 9))
    unroll = p.variable("unroll", range(1, 9))
    buffers = p.variable("buffers", [0, 1])
    p.variable("cached", [0, 1, 2, 3, 4])
    p.add((bx * by >= 32) & (bx * by <= 1024))
    p.add(divides(unroll, steps))
    p.add((bx * tx + 2 * steps) * (by * ty + 2 * steps) * (1 + buffers) * 8 <= 65536)
    return p


@needs_core
def test_counts_of_a_large_space_agree() -> None:
    p = stencil()
    count = p.count(time_limit=60)
    listed = sum(1 for _ in p.solutions())
    assert count == listed > 10_000


@needs_core
def test_both_engines_list_the_same_in_the_same_order() -> None:
    p = stencil()
    p.table([variable("bx"), variable("by")], [(32, 8), (64, 4), (48, 2)])
    prefer = [("tx", "max"), ("bx", "max")]
    native = list(p.solutions(prefer=prefer))
    assert native == list(p.solutions(prefer=prefer, engine="python"))
    assert len(native) == len({tuple(s.values()) for s in native}) == p.count() > 5000


@needs_core
@pytest.mark.parametrize("engine", ["native", "python"])
def test_a_time_limit_ends_the_search(engine: str) -> None:
    """Without it, this would take forever."""
    p = Problem("hard")
    variables = [p.variable(f"x{i}", range(1, 60)) for i in range(12)]
    total = variables[0] * variables[1]
    for a, b in pairwise(variables[1:]):
        total = total + a * b * b
    p.add(total % 1_000_003 == 77)
    with pytest.raises(TimeLimit):
        p.count(time_limit=0.1, engine=engine)
    assert p.best(minimize=-total % 997 * variables[3], time_limit=0.1, engine=engine).proven is False


def test_an_anytime_answer_satisfies_and_its_bound_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves a millisecond whenever it is read."""
    p = Problem("anytime")
    x = [p.variable(f"x{i}", range(1, 41)) for i in range(10)]
    for i in range(8):
        p.add(x[i] * x[i + 1] + x[i + 2] != 50 + i)
    objective = sum((x[i] * x[i + 1] - 37 * x[i + 2]) % 101 for i in range(8))
    monkeypatch.setattr(time, "perf_counter", Ticking())
    result = p.best(maximize=objective, time_limit=1, engine="python")
    assert not result.proven
    assert result.status == "feasible"
    assert result.solution is not None
    assert p.check(result.solution) == []
    assert result.bound is not None
    assert result.objective is not None
    assert result.objective <= result.bound


ENDLESS = """
import signal
from constrint import Problem
signal.signal(signal.SIGINT, signal.default_int_handler)
p = Problem("endless")
x = [p.variable(f"x{i}", range(2, 200)) for i in range(14)]
p.add(sum(a * a * b for a, b in zip(x, x[1:])) % 1_000_003 == 5)
p.add(sum(a * b * b for a, b in zip(x, x[2:])) % 1_000_033 == 77)
print("ready", flush=True)
try:
    QUESTION
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@needs_core
@pytest.mark.parametrize(
    "question",
    [
        "p.count()",
        "p.solve()",
        "p.explain()",
        "p.best(minimize=x[0] * x[5] - x[3])",
        "next(p.solutions())",
        "p.solve(engine='python')",
        "p.solve(engine='cp-sat')",
    ],
)
def test_ctrl_c_stops_every_question(question: str) -> None:
    script = ENDLESS.replace("QUESTION", question)
    if "cp-sat" in question:
        # Its import must not meet the signal.
        script = "import ortools.sat.python.cp_model\n" + script
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.2)  # wherever the signal meets it, it stops
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=20)
        assert output == "stopped\n"
    finally:
        child.kill()


@needs_core
def test_what_64_bits_cannot_hold_goes_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    p = Problem("large")
    x = p.variable("x", [3, 2**40, 2**40 + 1])
    y = p.variable("y", [5, 2**40 - 1])
    p.add(x * y != 2**80 - 1)
    program, _ = presolve(p)
    assert program is not None
    assert not fits(program)
    assert [s["x"] * s["y"] for s in p.solutions()] == [15, 3 * (2**40 - 1), 5 * 2**40, 2**80 - 2**40, 5 * (2**40 + 1)]
    small = Problem("small")
    a = small.variable("a", range(10))
    b = small.variable("b", range(10))
    small.add(a * b == 12)
    program, _ = presolve(small)
    assert program is not None
    assert fits(program)

    def refuse(*_: object) -> int:
        raise AssertionError("the Python engine was asked")

    monkeypatch.setattr(PythonSearch, "count", refuse)
    assert small.count() == 4


@needs_core
def test_products_near_the_limit_are_exact() -> None:
    for bits in (29, 30, 31, 32, 61, 62, 63, 64, 65):
        p = Problem(f"{bits} bits")
        x = p.variable("x", [2**bits - 1, 2**bits, 2**bits + 1])
        y = p.variable("y", [2**bits - 1, 2**bits, 2**bits + 1])
        p.add(x * y == 2 ** (2 * bits) - 1)
        assert p.count() == 2, bits
        assert p.best(maximize=x * x - y).objective == (2**bits + 1) ** 2 - 2**bits + 1, bits
    assert SAFE < 2**62


def test_without_the_core_python_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.core, "load_core", lambda: None)
    p = Problem("twin")
    x = p.variable("x", range(1, 20))
    p.add(divides(x, 36))
    assert not has_core()
    assert [s["x"] for s in p.solutions()] == [1, 2, 3, 4, 6, 9, 12, 18]


def test_cp_sat_lists_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order of preference, and without all of them at hand: each question halves a domain."""
    questions = 0

    def counting(*arguments: object) -> object:
        nonlocal questions
        questions += 1
        return solve(*arguments)  # type: ignore[arg-type]

    solve = constrint.cpsat.CpSatCall._solve
    monkeypatch.setattr("constrint.cpsat.CpSatCall._solve", counting)
    large = Problem("large")
    x, y = large.variable("x", range(10**6)), large.variable("y", range(10**6))
    large.add(x + y >= 1000)
    first = list(islice(large.solutions(prefer=[("x", "max")], engine="cp-sat"), 3))
    assert first == [{"x": 10**6 - 1, "y": y} for y in range(3)]
    assert questions <= 2 * (10**6).bit_length() + 1
    monkeypatch.setattr("constrint.cpsat.BATCH", 5)
    for seed in range(8):
        p = random_problem(300_000 + seed, 200)
        prefer = [("x1", "max"), ("x0", "min")]
        assert list(p.solutions(prefer=prefer, engine="cp-sat")) == list(p.solutions(prefer=prefer)), seed


@pytest.mark.parametrize(("name", "value"), [("LAST_OP", -1), ("SOURCES", "of other sources")])
def test_a_core_of_other_sources_is_not_used(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    native = pytest.importorskip("constrint._core_native")
    monkeypatch.setattr(native, name, value)
    constrint.core.load_core.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="other sources"):
            assert constrint.core.load_core() is None
    finally:
        constrint.core.load_core.cache_clear()


def test_the_digest_of_sources_knows_their_names_and_contents(tmp_path: Path) -> None:
    digests = []
    for name, text in (("a.cpp", "int a;"), ("a.hpp", "int b;"), ("a.hpp", "int c;"), ("b.hpp", "int c;")):
        (tmp_path / name).write_text(text)
        digests.append(constrint.core.sources_digest(tmp_path))
    (tmp_path / "notes.txt").write_text("no source")
    assert constrint.core.sources_digest(tmp_path) == digests[-1]
    assert len({*digests}) == 4
