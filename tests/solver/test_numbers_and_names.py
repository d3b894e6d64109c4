"""What enters as a number or a name: NumPy's integers, whole floats, sets and dictionaries, keywords, long ranges."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from constrint import (
    ConstrintError,
    ParseError,
    Problem,
    cdiv,
    divides,
    isin,
    load_space,
    load_t1,
    maximum,
    minimum,
    parse_constrint,
    parse_restriction,
    print_constrint,
    print_space,
    print_t1,
    read_problem,
    table,
)
from constrint.diagram import Diagram
from constrint.evaluate import evaluate

pytestmark = pytest.mark.unit


def small() -> Problem:
    problem = Problem("small")
    x, y = problem.variable("x", [1, 2, 3]), problem.variable("y", range(2**40))
    problem.add(x <= 2)
    problem.add(y < 3)
    return problem


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.int8, float, np.float32, Fraction, np.array])
def test_a_solution_is_one_whatever_numbers_hold_it(kind: Callable[[int], object]) -> None:
    problem = small()
    solutions = problem.solution_set()
    for x, inside in ((1, True), (2, True), (3, False), (4, False)):
        if kind is np.array and x == 1:
            assert problem.contains({"x": np.array(1), "y": np.int64(2)})
        assignment = {"x": kind(x), "y": kind(2)}
        assert problem.contains(assignment) is inside  # type: ignore[arg-type]
        assert (assignment in solutions) is inside
    assert problem.contains({"x": 1, "y": np.int64(2**39)}) is False  # at once, not value by value


def test_rows_of_the_table_are_solutions_with_neighbours() -> None:
    problem = small()
    rows = problem.to_numpy()
    for row in rows:
        assignment = dict(zip("xy", row, strict=True))
        assert problem.contains(assignment)
        assert assignment in problem.solution_set()
        found = list(problem.neighbours(assignment))
        assert len(found) == 3
        assert all(type(value) is int for step in found for value in step.values())
    problem.exclude(dict(zip("xy", rows[0], strict=True)))
    assert problem.count() == len(rows) - 1


def test_numpy_numbers_do_not_wrap() -> None:
    problem = Problem("wide")
    x = problem.variable("x", np.array([100, 200], dtype=np.uint8))
    assert problem.domains["x"] == (100, 200)
    assert evaluate(x * x * x, {"x": np.uint8(200)}) == 8_000_000
    assert evaluate(x * 2**62 * 8, {"x": np.int64(200)}) == 200 * 2**65
    problem.add(x * np.uint8(200) == 40_000)
    assert problem.solve().solution == {"x": 200}
    assert type(problem.solve().solution["x"]) is int  # type: ignore[index]
    assert (cdiv(np.int8(-128), 1), minimum(np.int8(1), 3), maximum(np.uint8(1), -3)) == (-128, 1, 1)
    assert divides(np.uint8(3), np.uint8(9)) is True
    assert isin(np.int64(2), range(2**70))
    problem.table([x], np.array([[200], [100]]))
    problem.add(np.bool_(True))
    assert problem.count() == 1
    truths = Problem()
    truths.variable("b", [np.bool_(True)])
    assert truths.solve().solution == {"b": True}


@pytest.mark.parametrize("value", [4.5, "1", None, float("nan"), float("inf"), [1], {"x": 1}, np.array([1, 2])])
def test_what_is_no_whole_number_is_refused_in_words(value: object) -> None:
    problem = small()
    for question in (problem.contains, problem.check, lambda a: list(problem.neighbours(a)), problem.exclude):
        with pytest.raises(ConstrintError, match="the value of 'x' must be an integer"):
            question({"x": value, "y": 1})  # type: ignore[operator]
    assert {"x": value, "y": 1} not in problem.solution_set()


@pytest.mark.parametrize("limit", [float("nan"), "1", [1], True, {}])
def test_time_limits_are_numbers(limit: object) -> None:
    problem = small()
    for question in (problem.solve, problem.count, problem.explain, problem.solution_set, problem.to_numpy):
        with pytest.raises(ConstrintError, match="a time limit is a number of seconds"):
            question(time_limit=limit)  # type: ignore[arg-type]
    assert problem.solve(time_limit=10**5000).status == problem.solve(time_limit=float("inf")).status == "feasible"


def test_membership_of_an_expression_in_a_set_is_refused() -> None:
    problem = Problem("sets")
    x = problem.variable("x", [1, 2, 3])
    known = {1: 10, 2: 20}
    keys, nothing = known.keys(), set[int]()
    attempts: list[Callable[[], object]] = [
        lambda: x in {1, 2},
        lambda: x in nothing,
        lambda: x in frozenset({1, 2}),
        lambda: x in known,
        lambda: x in keys,
        lambda: known.get(x, 0),
        lambda: known[x],
        lambda: {x: 1},
        lambda: {x, 1},
        lambda: (x + 1) in {2, 3},
        lambda: (x, 1) in {(1, 1)},
        lambda: x in [1, 2],
        lambda: x in (1, 2),
        lambda: x in range(3),
        lambda: x in known.values(),
        lambda: x in np.array([1, 2]),
    ]
    for attempt in attempts:
        with pytest.raises(ConstrintError):
            problem.add(attempt())  # type: ignore[arg-type]
    with pytest.raises(ConstrintError, match=r"isin.*table"):
        hash(x)
    problem.add(isin(x, {1, 2}))
    assert problem.count() == 2


def test_long_ranges_are_not_listed() -> None:
    for step, count in ((1, 3), (2, 1)):
        problem = Problem("long")
        x = problem.variable("x", [-1, 0, 1, 3, 2**80])
        problem.add(x.isin(range(1, 2**70, step)) | (x == 2**80) if step == 1 else x.isin(range(0, 2**70, 2)))
        assert problem.count() == count
    problem = Problem("fractions")
    x = problem.variable("x", [1, 2, 3, 4])
    problem.add((x / 2).isin(range(5000)))  # 1/2 lies between 0 and 4999 and is none of them
    assert [s["x"] for s in problem.solutions()] == [2, 4]
    again = parse_constrint("X == [1, 2, 3, 4]; X / 2 == [0 .. 4999];")
    assert [s["X"] for s in again.solutions()] == [2, 4]


def test_parameters_named_as_constants_are_meant_as_parameters() -> None:
    given = {"tune_params": {"True": [0, 2], "q": [1, 2, 3]}, "restrictions": ["True == 2", "q > True"]}
    problem = load_space(given)
    assert problem.count() == 1
    problem.add(True)
    for again in (
        load_space(print_space(problem)),
        load_t1(print_t1(problem)),
        parse_constrint(print_constrint(problem)),
    ):
        assert list(again.solutions()) == [{"True": 2, "q": 3}]


@pytest.mark.parametrize(
    ("name", "words"),
    [("lambda", "keyword"), ("in", "keyword"), ("not", "keyword"), ("µ", "normalises"), ("a,b", "identifier")],
)
def test_names_that_no_restriction_can_use_are_refused(name: str, words: str) -> None:
    with pytest.raises(ConstrintError, match=words):
        load_space({"tune_params": {name: [1, 2]}})
    with pytest.raises(ConstrintError, match=words):
        load_t1({"ConfigurationSpace": {"TuningParameters": [{"Name": name, "Type": "int", "Values": "[1]"}]}})
    if words == "keyword":
        # A name like any other in ConstrINT, which a space cannot hold.
        problem = parse_constrint(f"{name} == [1, 2]; {name} >= 2;")
        assert parse_constrint(print_constrint(problem)).count() == 1
        for write in (print_space, print_t1):
            with pytest.raises(ConstrintError, match="keyword"):
                write(problem)
    else:
        with pytest.raises(ConstrintError):
            parse_constrint(f"{name} == [1, 2];")


def test_both_formats_take_values_of_any_kind() -> None:
    def t1(values: object, kind: str = "int") -> Problem:
        return load_t1({"ConfigurationSpace": {"TuningParameters": [{"Name": "a", "Type": kind, "Values": values}]}})

    assert load_space({"tune_params": {"a": [1, 2.0]}}).domains == t1([1, 2.0]).domains == t1("[1, 2.0]").domains
    for load in (t1, lambda values: load_space({"tune_params": {"a": values}})):
        for values in ([True], [1.5], ["x"], [None]):
            assert load(values).values("a") == tuple(values)
        with pytest.raises(ConstrintError):
            load([[1]])
    assert t1("[True, False]", "bool").domains["a"] == (0, 1)
    assert [s["a"] for s in t1("[1, 0]", "bool").solutions()] == [False, True]


@pytest.mark.parametrize("text", ["", "  ", "\n", "# nothing"])
def test_an_empty_restriction_is_said_to_be_empty(text: str) -> None:
    with pytest.raises(ParseError, match="the restriction is empty"):
        load_space({"tune_params": {"a": [1]}, "restrictions": [text]})
    with pytest.raises(ParseError, match="the restriction is empty"):
        parse_restriction(text, ["a"])


@pytest.mark.parametrize("engine", ["native", "python"])
def test_undefined_values_survive_every_format(engine: str) -> None:
    problems = []
    for make, count in (
        (lambda x, y: ~table([y, 6 % x], [(5, 0)]), 2),
        (lambda x, y: ~table([y, 6 % x], []), 2),
        (lambda x, y: ~table([y, y / x], [(5, 0)]), 2),
        (lambda x, y: ~table([y / x], []), 2),
        (lambda x, y: table([y, y / x], [(2, 2), (1, 5)]) | (x == 0), 3),
    ):
        problem = Problem("undefined")
        problem.add(make(problem.variable("x", [0, 1]), problem.variable("y", [1, 2])))
        problems.append((problem, count))
    for problem, count in problems:
        for again in (
            problem,
            parse_constrint(print_constrint(problem)),
            load_space(print_space(problem)),
            load_t1(print_t1(problem)),
        ):
            assert again.count(engine=engine) == count, print_constrint(problem)
            assert sum(again.contains({"x": x, "y": y}) for x in (0, 1) for y in (1, 2)) == count


@pytest.mark.parametrize("engine", ["native", "python", "cp-sat"])
def test_a_negative_exponent_is_an_exact_fraction(engine: str) -> None:
    problem = Problem("powers")
    x, y = problem.variable("x", range(1, 9)), problem.variable("y", range(1, 9))
    problem.add(2 ** (x - y) <= 2)
    expected = sum(2.0 ** (a - b) <= 2 for a in range(1, 9) for b in range(1, 9))
    assert problem.count(engine=engine) == expected == 43
    with pytest.raises(ConstrintError, match="exponent"):
        problem.best(minimize=2 ** (x - y), engine=engine)
    with pytest.raises(ConstrintError, match="exponent"):
        evaluate(2 ** (x / y), {"x": 1, "y": 2})


def test_a_long_table_is_written_and_read_back() -> None:
    problem = Problem("rows")
    columns = [problem.variable(name, range(50)) for name in "ab"]
    problem.table(columns, [(i, 49 - i) for i in range(50)] + [(i, i) for i in range(50)])
    problem.add(isin(columns[0] / 1, [2 * i for i in range(300)]))  # rational: no table of the engines'
    again = parse_constrint(print_constrint(problem))
    assert again.count() == problem.count() == 50
    with pytest.raises(ParseError, match="2 columns, but a row of 3"):
        parse_constrint("(A, B) == [(1, 2, 3)];")


def test_a_solution_set_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("pickled")
    x, y = problem.variable("x", range(100_000)), problem.variable("y", [1, 2, 3, 4])
    z = problem.variable("z", range(7))
    problem.add(divides(1000 * y, x))
    problem.add(y + z <= 6)
    for engine in ("native", "python", "cp-sat"):
        found = problem.solution_set(engine=engine)
        data = pickle.dumps(found)
        again = pickle.loads(data)
        assert (again.count, again.order, list(again)) == (found.count, found.order, list(found))
        assert again.index(found[5]) == 5
        assert (again.to_numpy() == found.to_numpy()).all()
    data = pickle.dumps(problem.solution_set())
    monkeypatch.setattr("constrint.core.load_core", lambda: None)
    elsewhere = pickle.loads(data)  # where the core was not built
    assert all(isinstance(factor, Diagram) for _, factor in elsewhere._factors)
    assert list(elsewhere) == list(problem.solution_set(engine="python"))


def test_problems_are_read_with_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConstrintError, match="/dev/zero holds more than 64 MiB"):
        read_problem("/dev/zero")
    monkeypatch.setattr("constrint.text.LARGEST_FILE", 100)
    long = tmp_path / "long.txt"
    long.write_text("x == [1 .. 9];\n" * 10)
    with pytest.raises(ConstrintError, match="holds more than"):
        read_problem(long)


def test_aliases_of_yaml_are_counted_before_they_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("v: &v [1, 2, 4]\ntune_params: {x: *v, y: *v}\nrestrictions: ['x < y']\n")
    assert read_problem(file).count() == 3
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(9)]
    file.write_text("\n".join([*lines, "tune_params: {x: *j}"]))
    with pytest.raises(ConstrintError, match="aliases of this document stand for"):
        read_problem(file)
    lines = ["a: &a {x: [1, 2]}"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join(['*' + chr(97 + i)] * 9)}]}}" for i in range(9)]
    file.write_text("\n".join([*lines, "tune_params: *j"]))
    with pytest.raises(ConstrintError, match="aliases of this document stand for"):
        read_problem(file)
    file.write_text("tune_params: &a {x: [1, 2], y: *a}\n")
    with pytest.raises(ConstrintError, match="holds itself"):
        read_problem(file)
