"""Values of every kind, restrictions as tuners write them, and Python functions as restrictions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import check_everything

from constrint import (
    ConstrintError,
    ParseError,
    Problem,
    choose,
    element,
    load_space,
    load_t1,
    print_constrint,
    print_space,
    print_t1,
    read_problem,
    write_problem,
)
from constrint.value_text import read_values

pytestmark = pytest.mark.unit

ENGINES = ("native", "python", "cp-sat")


@pytest.mark.parametrize(("engine", "count"), [("native", 160), ("python", 60), ("cp-sat", 12)])
@pytest.mark.parametrize("few", [0, 1024])
def test_random_problems_over_values(engine: str, count: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stated by arithmetic where that is possible (few: 0), or as tables."""
    monkeypatch.setattr("constrint.encode.FEW", few)
    for seed in range(700_000 + few, 700_000 + few + count):
        check_everything(seed, engine, values=True)


@pytest.mark.fuzz
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("few", [0, 1024])
def test_many_random_problems_over_values(engine: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constrint.encode.FEW", few)
    for seed in range(800_000 + few, 800_000 + few + (300 if engine == "cp-sat" else 10_000)):
        check_everything(seed, engine, values=True)


VALUES: dict[str, list[Any]] = {
    "layout": ["row", "col", "tiled"],
    "scale": [2, 0.5, 1.25],
    "padded": [True, False],
    "cache": [None, "l1", 4],
    "tile": [64, 8, 16],
}


def mixed() -> Problem:
    return load_space({"tune_params": VALUES, "restrictions": ["tile * scale >= 16", "cache != 'l1' or padded"]})


@pytest.mark.parametrize("engine", ENGINES)
def test_values_come_back_as_they_were_given(engine: str) -> None:
    problem = mixed()
    expected = [
        dict(zip(VALUES, row, strict=True))
        for row in itertools.product(*VALUES.values())
        if row[4] * row[1] >= 16 and (row[3] != "l1" or row[2])
    ]
    found = list(problem.solutions(engine=engine))
    assert len(found) == len(expected) == problem.count(engine=engine)
    assert all(solution in found for solution in expected)
    for solution in found:
        for name, value in solution.items():
            kept = VALUES[name][VALUES[name].index(value)]
            assert type(value) is type(kept)
    solutions = problem.solution_set(engine=engine)
    assert [solutions.index(solution) for solution in solutions] == list(range(len(expected)))
    assert all(problem.contains(solution) for solution in problem.sample(5, seed=1, engine=engine))
    assert problem.values("tile") == (64, 8, 16)
    assert problem.values("cache") == (None, "l1", 4)


def test_questions_take_values() -> None:
    problem = mixed()
    start = {"layout": "row", "scale": 0.5, "padded": np.bool_(True), "cache": None, "tile": np.int64(64)}
    assert problem.contains(start)
    steps = list(problem.neighbours(start))
    assert {"layout": "col", "scale": 0.5, "padded": True, "cache": None, "tile": 64} in steps
    assert all(problem.contains(step) for step in steps)
    assert [str(c) for c in problem.check({**start, "layout": "diagonal"})] == ["layout in ['row', 'col', 'tiled']"]
    assert problem.solve(prefer=[("layout", "max"), ("scale", "max")]).solution == {
        "layout": "tiled",
        "scale": 2,
        "padded": False,
        "cache": 4,
        "tile": 8,
    }
    before = problem.count()
    problem.exclude({"layout": "row", "padded": True})
    assert problem.count() < before
    assert not problem.contains(start)


@pytest.mark.parametrize("name", ["p.json", "p.yaml", "p.t1.json"])
def test_files_keep_values_and_their_order(tmp_path: Path, name: str) -> None:
    problem = mixed()
    write_problem(problem, tmp_path / name)
    again = read_problem(tmp_path / name)
    assert {each: list(again.values(each)) for each in again.domains} == VALUES
    assert list(again.solutions()) == list(problem.solutions())
    with pytest.raises(ConstrintError, match="holds integers"):
        print_constrint(problem)


def test_names_with_dots_dashes_and_spaces() -> None:
    given = {"block size": [8, 16], "n.x": [1, 2], "k-split": [1, 3], "k": [2]}
    restrictions = ["block size * n.x <= 16", "k-split - k <= 0 or p['block size'] == 8", "'k-split' != 'k'"]
    problem = load_space({"tune_params": given, "restrictions": restrictions})
    expected = sum(b * n <= 16 and (s - 2 <= 0 or b == 8) for b, n, s in itertools.product([8, 16], [1, 2], [1, 3]))
    assert problem.count() == expected
    for again in (load_space(print_space(problem)), load_t1(print_t1(problem))):
        assert again.count() == expected
    with pytest.raises(ParseError, match=r"p\['a-b'\]"):
        load_space({"tune_params": {"a": [1], "b": [1], "a-b": [1]}, "restrictions": ["a-b == 1"]})
    with pytest.raises(ParseError) as caught:
        load_space({"tune_params": given, "restrictions": ["block size == 8 and m == 1"]})
    assert caught.value.column == 21


RESTRICTIONS = [
    "(a if b > 2 else b) <= 3",
    "a & (a - 1) == 0",
    "a | b == 7 or a ^ b == 1",
    "1 << b <= a",
    "a >> 1 == b",
    "~a == -b - 1",
    "math.ceil(a / 3) == b",
    "floor(a / b) == int(a // b) and ceil(0.5 * a) > 1",
    "round(a / 2) == b",
    "round(a * 0.25, 1) > 0.5",
    "int(a / b) == a / b",
    "math.log2(a) == int(math.log2(a))",
    "math.log2(a).is_integer() and b < 3",
    "math.sqrt(a) > b",
    "divmod(a, b)[0] == 2 or divmod(a, b) == (1, 1)",
    "len([a, b]) == 2 and len('xy') == b",
    "[1, 2, 4, 8][b - 1] == a",
    "a in range(1, 9, 2)",
    "a in range(b, 2 * b + 1)",
    "a in [b, 2 * b, b + 3]",
    "a in {1, 4} or (a, b) in [(2, b), (6, 4)]",
    "1 < a <= 4 != b",
    "0.1 * a <= 0.3",
    "any([a == 1, b == 2]) and all((a < 5, b < 5))",
    "sum([a, b, 1]) == 6 and max([a, b]) > 2",
    "(a > 2) + (b > 2) == 1",
    "(a and b) == 2",
    "(a % 2 or b) == 3",
    "math.gcd(a, b) == 2",
    "pow(a, 2) == b ** 2",
    "a.bit_length() == b",
    "not (a if b else 0) == 3",
    "a is not None and b > 1",
    "float(a) == b and bool(a - 1)",
]


@pytest.mark.parametrize("few", [0, 1024])
def test_restrictions_mean_what_they_mean_in_python(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constrint.encode.FEW", few)
    for text in RESTRICTIONS:
        problem = load_space({"tune_params": {"a": list(range(1, 9)), "b": [4, 1, 2, 3]}, "restrictions": [text]})
        names = {"math": math, "ceil": math.ceil, "floor": math.floor}
        expected = [
            {"a": a, "b": b}
            for a in range(1, 9)
            for b in (1, 2, 3, 4)
            if eval(text.replace("0.1 * a <= 0.3", "a <= 3"), names | {"a": a, "b": b})  # the list above
        ]
        assert list(problem.solutions()) == expected, text
        assert 0 < len(expected) < 32 or "is not" in text, text
        again = load_space(print_space(problem))
        assert list(again.solutions()) == expected, print_space(problem)["restrictions"]


def test_text_is_compared_with_its_kind() -> None:
    def count(text: str) -> int:
        values = {"s": ["b", "a", ""], "m": [None, 1, "a"], "n": [0, 1, 2]}
        return load_space({"tune_params": values, "restrictions": [text]}).count()

    assert count("s == m") == 3
    assert count("s != m") == 24
    assert count("s < 'b'") == 18
    assert count("m > 0") == 9  # against None and text a number has no order
    assert count("not m > 0") == 0
    assert count("m == n") == 3
    assert count("m * 2 == n") == 3
    assert count("s") == 18
    assert count("m and n") == 12
    assert count("len(s) == n") == 9
    assert count("len(m) == 1") == 9
    assert count("m in [None, 'a']") == 18
    assert count("s == n") == 0
    assert count("('a' if n else 'b') == s") == 9
    assert count("m is None or s == 'a'") == 15


def test_conditional_and_element_need_only_what_they_choose() -> None:
    for engine in ENGINES:
        problem = Problem("guarded")
        n, m = problem.variable("n", range(5)), problem.variable("m", range(2000))
        problem.add(choose(n == 0, 7, 12 // n + m) == 7)
        problem.add(element(n, [m, 1, 2, 3 % n]) <= 2)
        expected = [(0, m) for m in range(3)] + [(n, 7 - 12 // n) for n in (2, 3) if 12 // n <= 7]
        assert [tuple(s.values()) for s in problem.solutions(engine=engine)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[2**i for i in range(5)]", [1, 2, 4, 8, 16]),
        ("list(range(1, 4)) + [8]", [1, 2, 3, 8]),
        ("[x * y for x in (1, 2) for y in [3, 5] if x * y != 6]", [3, 5, 10]),
        ("[*range(3), 'auto', None, True]", [0, 1, 2, "auto", None, True]),
        ("[32 * i for i in range(1, 5)][::-1][:2]", [128, 96]),
        ("[1, 2] * 2", [1, 2, 1, 2]),
        ("[a + b for a, b in [(1, 2), (3, 4)]]", [3, 7]),
        ("sorted([3, 1]) + [round(2.5), min(4, 5), -1]", [1, 3, 2, 4, -1]),
        ("[0.5, 1e3] if 2 > 1 else []", [0.5, 1000.0]),
    ],
)
def test_t1_values_are_read_as_expressions(text: str, expected: list[Any]) -> None:
    assert read_values(text) == expected
    parameter = {"Name": "x", "Type": "int", "Values": text}
    problem = load_t1({"ConfigurationSpace": {"TuningParameters": [parameter]}})
    assert list(problem.values("x")) == list(dict.fromkeys(expected))


def test_a_number_that_no_fraction_states_is_tabulated_or_refused_as_an_objective() -> None:
    problem = Problem("roots")
    x, y = problem.variable("x", range(1, 60)), problem.variable("y", range(1, 60))
    from constrint import parse_restriction

    problem.add(parse_restriction("math.sqrt(x) + y / 2 <= 8", problem.domains))
    assert problem.count() == sum(math.sqrt(a) + b / 2 <= 8 for a in range(1, 60) for b in range(1, 60))
    assert problem.best(maximize=choose(x > 5, x & 6, y)).objective == max(
        (a & 6) if a > 5 else b for a in range(1, 60) for b in range(1, 60) if math.sqrt(a) + b / 2 <= 8
    )
    with pytest.raises(ConstrintError, match="an objective cannot hold"):
        problem.best(maximize=parse_restriction("math.sqrt(x) == 1", problem.domains).args[0])
