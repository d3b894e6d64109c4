"""Both text dialects and tuning spaces: what they mean, what they refuse and how they say it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from random_problems import random_problem, solutions_of

from constrint import (
    ConstrintError,
    ParseError,
    Problem,
    load_space,
    parse_constrint,
    parse_restriction,
    print_constrint,
    print_space,
    read_problem,
)

pytestmark = pytest.mark.unit

KERNEL = """\
# sizes by hand
WARPS == [1, 2, 4, 8];
TILE == [16 .. 64 by 16];   # a stepped range
HIDDEN == 96;
HIDDEN % WARPS * TILE == 0;
SHARED == 2 * HIDDEN * TILE ^ 2 +
          4 * WARPS;        # a statement may take several lines
SHARED <= 200000;
WARPS == 1 |
TILE <= 16;
"""


def test_constrint_text_is_read_as_documented() -> None:
    problem = parse_constrint(KERNEL, "kernel")
    assert list(problem.domains) == ["WARPS", "TILE", "HIDDEN", "SHARED"]
    assert problem.domains["TILE"] == (16, 32, 48, 64)
    assert problem.domains["SHARED"] == range(1, 2**30 + 1)
    expected = [
        {"WARPS": w, "TILE": t, "HIDDEN": 96, "SHARED": 2 * 96 * t**2 + 4 * w}
        for w in (1, 2, 4, 8)
        for t in (16, 32, 48, 64)
        if 96 % (w * t) == 0 and 2 * 96 * t**2 + 4 * w <= 200000 and (w == 1 or t <= 16)
    ]
    assert list(problem.solutions()) == expected
    labels = [constraint.label for constraint in problem.constraints]
    assert "HIDDEN % WARPS * TILE == 0" in labels
    assert "WARPS == 1 | TILE <= 16" in labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 % A * 2 == 0", [1, 2, 3, 6]),  # 2 A divides 12
        ("A + 5 % 4 == 0", [3, 7]),  # A + 5 is a multiple of 4
        ("A ^ 2 <= 10", [1, 2, 3]),
        ("2 * A ^ 2 == 18", [3]),
        ("-A ^ 2 == -9", [3]),
        ("A - 3 - 2 == 1", [6]),
        ("A / 2 == 3 / 2", [3]),  # exact
        ("A // 3 == 2", [6, 7, 8]),
        ("cdiv(A, 3) == 2", [4, 5, 6]),
        ("min(A, 4) == max(3, 4) & abs(2 - A) <= 3", [4, 5]),
        ("3 <= A < 5 | A == 8", [3, 4, 8]),
        ("~(A >= 3 | A == 1)", [2]),
        ("A != [1 .. 6]", [7, 8]),
        ("A ^ 2 == [4, 9, 50]", [2, 3]),
        ("[2, 3] == A", [2, 3]),
        ("(A == 2) | ((A + 1) * 2 == 10)", [2, 4]),
        ("0 == 1", []),
    ],
)
def test_operators_of_constrint_text(text: str, expected: list[int]) -> None:
    problem = parse_constrint(f"A == [1 .. 8]; {text};")
    assert [solution["A"] for solution in problem.solutions()] == expected


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("A == 1", 1, 7, "expected ';' at the end of the statement, found the end of the text"),
        ("A <= 3;\nB + ;", 2, 5, "expected a number, a variable, a value list or '(', found ';'"),
        ("A <= 3;\n  A $ 2;", 2, 5, "unexpected character '$'"),
        ("A = 3;", 1, 3, "unexpected character '='; equality is written =="),
        ("A == 1.5;", 1, 7, "unexpected character '.'; this text holds integers alone"),
        ("A == 1 && B == 2;", 1, 9, "or '(', found '&'; and is written &"),
        ("A == 1 || B == 2;", 1, 9, "or '(', found '|'; or is written |"),
        ("A + 1;", 1, 1, "expected a condition"),
        ("A == (1 + 2;", 1, 12, "expected ')'"),
        ("A == [1, ];", 1, 10, "expected an integer in the value list, found ']'"),
        ("A == [5 .. 2];", 1, 6, "an empty range"),
        ("A <= [1, 2];", 1, 6, "a value list can only be compared with == or !="),
        ("A * [1, 2] == 4;", 1, 5, "a value list stands alone"),
        ("A == 1 | B;", 1, 10, "expected a condition"),
        ("(A == 1) + 2 == 3;", 1, 1, "expected a number; this is a condition"),
        ("cdiv(A) == 1;", 1, 1, "cdiv takes 2 numbers, not 1"),
        ("A == 1 B == 2;", 1, 8, "expected ';'"),
        ("(" * 500 + "A" + ")" * 500 + " == 1;", 1, 51, "nested more than"),
    ],
)
def test_errors_in_constrint_text(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_constrint(text, "tiles.txt")
    error = caught.value
    assert (error.line, error.column) == (line, column)
    assert reason in error.reason
    first, source, caret = str(error).split("\n")
    assert first.startswith(f"tiles.txt, line {line}, column {column}: ")
    assert source == "  " + text.split("\n")[line - 1]
    assert caret == " " * (column + 1) + "^"


def test_constrint_text_round_trip() -> None:
    held = 0
    for seed in range(500_000, 500_400):
        problem = random_problem(seed, 120)
        try:
            text = print_constrint(problem)
        except ConstrintError:
            # The format has no place for a condition used as a number.
            continue
        held += 1
        again = parse_constrint(text)
        assert again.domains == problem.domains, text
        assert solutions_of(again) == solutions_of(problem), text
        assert print_constrint(parse_constrint(print_constrint(again))) == print_constrint(again)
    assert held > 200


def test_broken_text_never_fails_otherwise_than_by_a_message() -> None:
    rng = random.Random(7)
    pieces = [
        *KERNEL.split(),
        "(",
        ")",
        "[",
        "]",
        ";",
        "|",
        "&",
        "~",
        "^",
        "%",
        "..",
        "by",
        "cdiv(",
        "-",
        "==",
        "é",
        "9" * 5000,
    ]
    broken: list[ParseError] = []
    for _ in range(3000):
        text = " ".join(rng.choices(pieces, k=rng.randint(1, 12)))
        for parse in (parse_constrint, lambda t: parse_restriction(t, ["WARPS", "TILE"])):
            try:
                parse(text)
            except ParseError as error:
                broken.append(error)
    assert len(broken) > 3000
    assert all(error.line >= 1 and 1 <= error.column <= len(error.source) + 1 for error in broken)


def space(*restrictions: str, **parameters: list[int]) -> Problem:
    return load_space({"name": "own", "tune_params": parameters, "restrictions": list(restrictions)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a % 2 * 3 == 3", [1, 3, 5, 7]),  # Python's precedence: (a % 2) * 3
        ("a / 2 == 1.5", [3]),
        ("7 / a >= 2", [1, 2, 3]),
        ("12 % (6 / a) == 0", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("1 < a <= 4 != 3", [2, 3, 4]),
        ("not a > 2 or a == 5", [1, 2, 5]),
        ("a in [2, 4, 99] and a not in (4,)", [2]),
        ("(a, a % 2) in [(3, 1), (4, 1)]", [3]),
        ("min(a, 5) == max(a, 5) or abs(a - 3) == 2", [1, 5]),
        ("(a == 1) | (a == 2) & ~(a == 2)", [1]),
        ("(a > 3) + (a > 5) == 1", [4, 5]),
        ("a % 3", [1, 2, 4, 5, 7, 8]),  # a number means: is not 0
        ("2 ** -a * 8 == 4 or a == 8", [1, 8]),  # a negative exponent gives a fraction
        ("8 * 2 ** -2 == a", [2]),
        ("a - 2 - 1 == 1", [4]),
        ("-a ** 2 == -4", [2]),
        ("True and a < 2", [1]),
        ("\n  a == 3", [3]),
        ("12 % (a - 3) == 0", [1, 2, 4, 5, 6, 7]),  # a = 3 divides by zero: not a solution
        ("a == 3 or 12 % (a - 3) == 0", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_python_restrictions(text: str, expected: list[int]) -> None:
    assert [s["a"] for s in space(text, a=list(range(1, 9))).solutions()] == expected


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("a == __import__('os').getpid()", 6, "a call of anything but min, max, abs"),
        ("a.real == 1", 1, "an attribute is more than arithmetic"),
        ("a[0] == 1", 1, "a subscript is more than arithmetic"),
        ("(lambda: a)() == 1", 1, "a call"),
        ("a == (b := 2)", 7, "an assignment"),
        ("a.bit_length(1) == 1", 1, "a call"),
        ("math.inf == a", 1, "an attribute is more than arithmetic"),
        ("[1, 2][a:] == a", 1, "a subscript is more than arithmetic"),
        ("b['a'] == c['d']", 11, "unknown name 'd'"),
        ("math.gcd() == a", 1, "gcd takes 1 to 16 numbers"),
        ("len(a + 1) == 2", 1, "len takes text or a list"),
        ("round(a, a) == 2", 1, "the decimals of round"),
        ("a in range(0, 9, a)", 6, "the step of a range"),
        ("a == 1j", 6, "1j is no number"),
        ("a == c", 6, "unknown name 'c'; the variables are: a"),
        ("[x for x in a]", 1, "a comprehension"),
        ("a @ 2 == 4", 1, "@ is not supported"),
        ("a is 1", 1, "'is' compares objects"),
        ("a in a", 6, "'in' needs a list"),
        ("(a, a) in [1]", 12, "expected a tuple of 2 values"),
        ("min(a, key=a) == 1", 1, "min takes two or more numbers"),
        ("a == ", 6, "not a Python expression"),
        ("a == 1) or (a == 2", 1, "unbalanced parentheses"),
        ("a = 1", 1, "not a Python expression"),
        ("f'{a}' == 1", 1, "a string"),
    ],
)
def test_more_than_arithmetic_is_refused(text: str, column: int, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_restriction(text, ["a"])
    assert reason in caught.value.reason
    assert (caught.value.line, abs(caught.value.column - column) <= 1) == (1, True), caught.value


def test_nothing_is_evaluated(tmp_path: Path) -> None:
    target = tmp_path / "written"
    with pytest.raises(ParseError):
        space(f"open({str(target)!r}, 'w').write('x') == 1", a=[1])
    assert not target.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "tune_params"),
        ({"tune_params": [1]}, "tune_params"),
        ({"tune_params": {"a": 3}}, "'a' must be a list, not 3"),
        ({"tune_params": {"a": []}}, "'a' has no values"),
        ({"tune_params": {"a": [1, float("nan")]}}, "a value of 'a' must be a number, not nan"),
        ({"tune_params": {"a": [{}]}}, "a value of 'a' cannot be {} (dict)"),
        ({"tune_params": {"a": [[1]]}}, "a value of 'a' cannot be [1] (list)"),
        ({"tune_params": {"a,b": [1]}}, "'a,b'"),
        ({"tune_params": {"a ": [1]}}, "'a '"),
        ({"tune_params": {"a": [1]}, "restrictions": "a == 1"}, "restrictions"),
        ({"tune_params": {"a": [1]}, "restrictions": [5]}, "must be a string"),
    ],
)
def test_bad_spaces(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConstrintError) as caught:
        load_space(given)
    assert words in str(caught.value)


def test_own_spaces_have_the_right_size() -> None:
    matrix = space(
        "tile_m % (threads_m * vector) == 0",
        "tile_n % threads_n == 0",
        "tile_k % ((threads_m * threads_n) / split) == 0",
        "threads_m * threads_n <= 256 and (stages > 1 or prefetch == 0)",
        "tile_m != 64 or tile_n != 64 or split == 1",
        tile_m=[16, 32, 64],
        tile_n=[16, 32, 64],
        tile_k=[16, 32, 64],
        threads_m=[4, 8, 16],
        threads_n=[4, 8, 16],
        split=[1, 2, 4],
        vector=[1, 2, 4],
        stages=[1, 2, 3],
        prefetch=[0, 1],
    )
    expected = len(solutions_of(matrix))
    for engine in ("native", "python", "cp-sat"):
        assert matrix.count(engine=engine) == expected > 1000, engine


def test_space_round_trip_and_files(tmp_path: Path) -> None:
    problem = space(
        "a * b <= 12", "b % a == 0 or a == 3", "(a, b) in [(1, 2), (2, 4), (3, 1)]", a=[1, 2, 3], b=[1, 2, 4]
    )
    files = {
        "space.json": json.dumps(print_space(problem)),
        "space.txt": "  " + json.dumps(print_space(problem)),
        "space.yaml": "name: own\ntune_params: {a: [1, 2, 3], b: [1, 2, 4]}\nrestrictions:\n"
        + "".join(f"  - {json.dumps(text)}\n" for text in print_space(problem)["restrictions"]),
        "space.constrint": print_constrint(problem),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        again = read_problem(tmp_path / name)
        assert solutions_of(again) == solutions_of(problem), name
        assert again.domains == problem.domains


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"tune_params": {"a": [1,]}}', "line 1"),
        ("a.json", "[1]", "tune_params"),
        ("a.yaml", "tune_params: {a: [1\nb: 2", "not YAML"),
        ("a.yaml", "", "tune_params"),
        ("a.txt", "A == ;", "line 1, column 6"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConstrintError) as caught:
        read_problem(tmp_path / name)
    assert words in str(caught.value)
    assert name in str(caught.value)
    with pytest.raises(ConstrintError, match="cannot read"):
        read_problem(tmp_path / "missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConstrintError, match="cannot read"):
        read_problem(tmp_path / "binary.txt")
