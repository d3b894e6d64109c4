"""Solutions as tables: widths, files, chunks, tuples, dictionaries, Arrow."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_problems import random_problem
from random_values import random_values_problem

from constrint import ConstrintError, Problem, divides, has_core
from constrint.listing import arranged

pytestmark = pytest.mark.unit

ENGINES = ("native", "python")


def blocking() -> Problem:
    """Two groups that constraints join, and a free variable."""
    problem = Problem("blocking")
    x, y = problem.variable("x", [300, 8, 16, 2]), problem.variable("y", range(1, 40))
    u, v = problem.variable("u", range(-3, 3)), problem.variable("v", range(4))
    problem.variable("mode", ["fast", "exact", None])
    problem.add(divides(y, x))
    problem.add(u * v <= 2)
    return problem


@pytest.mark.parametrize("engine", ENGINES)
def test_every_table_holds_the_same_rows(engine: str, tmp_path: Path) -> None:
    solutions = blocking().solution_set(engine=engine)
    listed = [tuple(solution.values()) for solution in solutions]
    assert solutions.tuples() == listed
    assert solutions.dicts() == list(solutions)
    assert [list(row) for row in solutions.dicts()] == [list(solutions.names)] * solutions.count
    wide = solutions.to_numpy()
    assert wide.dtype == np.int64
    modes = solutions.values("mode")
    assert [(*row[:4], modes[row[4]]) for row in wide.tolist()] == listed
    for dtype in ("smallest", np.int16, "int32"):
        table = solutions.to_numpy(dtype=dtype)
        assert table.dtype == (np.int16 if dtype == "smallest" else dtype)
        assert (table == wide).all()
        assert table.flags.f_contiguous
    file = tmp_path / "rows.npy"
    mapped = solutions.to_numpy(dtype="smallest", file=file)
    assert isinstance(mapped, np.memmap)
    assert (np.load(file) == wide).all()
    assert (np.load(file, mmap_mode="r")[17:20] == wide[17:20]).all()
    positions = solutions.positions()
    declared = [solutions.values(name) for name in solutions.names]
    assert [tuple(v[p] for v, p in zip(declared, row, strict=True)) for row in positions.tolist()] == listed


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kept", [0, 1 << 22])
def test_chunks_join_to_the_table(engine: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """kept 0: no factor is listed whole."""
    monkeypatch.setattr("constrint.listing.KEPT", kept)
    solutions = blocking().solution_set(engine=engine)
    whole = solutions.to_numpy()
    for rows in (1, 7, 100, solutions.count, 10**9) if engine == "native" else (37, 10**9):
        parts = list(solutions.chunks(rows))
        assert all(len(part) == rows for part in parts[:-1])
        assert (np.concatenate(parts) == whole).all()
    for seed in range(30):
        problem = random_problem(seed, 200) if seed % 2 else random_values_problem(seed)
        found = problem.solution_set(engine=engine)
        parts = list(found.chunks(5, dtype="int64"))
        assert sum(map(len, parts)) == found.count
        if parts:
            assert (np.concatenate(parts) == found.to_numpy()).all()
        assert found.tuples() == [tuple(solution.values()) for solution in found]


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_are_objects_of_their_own(engine: str) -> None:
    """Each dictionary is made from the one before; changing one changes no other."""
    solutions = blocking().solution_set(engine=engine)
    rows, known = solutions.dicts(), list(solutions)
    rows[3]["mode"], rows[4]["more"] = "changed", 1
    del rows[5]["x"]
    assert rows[:3] + rows[6:] == known[:3] + known[6:]
    assert len({id(row) for row in rows}) == len(rows)


def test_rows_are_no_work_for_the_garbage_collector() -> None:
    """What refers to nothing but numbers and text is not looked through; a range too long to list is numbers too."""
    problem = blocking()
    far = problem.variable("far", range(2**40))
    problem.add(far < 3)
    solutions = problem.solution_set()
    rows = solutions.tuples()
    assert rows == [tuple(solution.values()) for solution in solutions]
    assert not any(map(gc.is_tracked, rows)) or not has_core()


def test_what_no_table_holds_is_refused(tmp_path: Path) -> None:
    solutions = blocking().solution_set()
    with pytest.raises(ConstrintError, match=r"a value does not fit int8.*go from -3 to 300"):
        solutions.to_numpy(dtype="int8")
    with pytest.raises(ConstrintError, match="does not fit uint16"):
        solutions.to_numpy(dtype="uint16")
    for dtype in ("float32", "magic", object):
        with pytest.raises(ConstrintError, match="ask for 'smallest'"):
            solutions.to_numpy(dtype=dtype)
    with pytest.raises(ConstrintError, match="at least one row"):
        next(solutions.chunks(0))
    with pytest.raises(ConstrintError, match="cannot write"):
        solutions.to_numpy(file=tmp_path / "missing" / "rows.npy")
    wide = Problem("wide")
    for name in "abcdefgh":
        wide.variable(name, range(1000))
    with pytest.raises(ConstrintError, match="ask for a smaller dtype, a file or chunks"):
        wide.to_numpy()
    with pytest.raises(ConstrintError, match="left"):
        wide.to_numpy(dtype="smallest", file=tmp_path / "rows.npy")
    first = next(wide.solution_set().chunks(10))  # however many there are
    assert first.tolist() == [[0] * 7 + [i] for i in range(10)]
    large = Problem("large")
    large.variable("x", [2**70])
    with pytest.raises(ConstrintError, match="does not fit"):
        large.to_numpy(dtype="smallest")


def test_no_variables_and_no_solutions() -> None:
    nothing = Problem("nothing")
    assert nothing.solution_set().tuples() == [()]
    assert nothing.solution_set().dicts() == [{}]
    problem = Problem("none")
    problem.add(problem.variable("x", ["a", "b"]) == "c")
    solutions = problem.solution_set()
    assert (solutions.tuples(), solutions.dicts(), list(solutions.chunks())) == ([], [], [])
    assert solutions.to_numpy(dtype="smallest").shape == (0, 1)


def test_long_ranges_are_written_as_they_are() -> None:
    problem = Problem("long")
    x, y = problem.variable("x", range(0, 2**40, 3)), problem.variable("y", ["a", "b"])
    problem.add((x < 12) | (x == 3 * 2**30))
    assert problem.add(y != "c").label == "y != 'c'"
    assert sorted(problem.solution_set().tuples()) == sorted(
        (value, text) for value in (0, 3, 6, 9, 3 * 2**30) for text in "ab"
    )


def test_arrow_takes_values() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = blocking().solution_set().to_arrow()
    assert table.column_names == ["x", "y", "u", "v", "mode"]
    assert [tuple(row.values()) for row in table.to_pylist()] == blocking().solution_set().tuples()
    assert pyarrow.types.is_dictionary(table.schema.field("mode").type)
    mixed = Problem("mixed")
    values: list[Any] = [1, "a"]
    mixed.variable("m", values)
    with pytest.raises(ConstrintError, match="several kinds"):
        mixed.solution_set().to_arrow()
    large = Problem()
    large.variable("x", [1, 2**70])
    with pytest.raises(ConstrintError, match="'x' has integers beyond 64 bits"):
        large.solution_set().to_arrow()


@pytest.mark.parametrize("rows", [0, 1, 700, 3000])
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_rows_arranged_by_some_columns(rows: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, by = [3, 1, 100, 7, 60, 2], [4, 0, 1, 2, 5]
    if dtype != "int8":
        sizes[2] = 5000  # more than are counted at a time
    rng = np.random.default_rng(5)
    table = np.asfortranarray(np.array([rng.integers(0, size, rows) for size in sizes], dtype=dtype).transpose())
    expected = sorted(table.tolist(), key=lambda row: [-row[column] for column in by])
    assert arranged(table, sizes, by).tolist() == expected
    assert arranged(table, sizes, [1]).tolist() == table.tolist()
    monkeypatch.setattr("constrint.core.load_core", lambda: None)
    assert arranged(table, sizes, by).tolist() == expected


def test_positions_of_more_values_than_are_listed_one_by_one() -> None:
    problem = Problem()
    x, y = problem.variable("x", range(-5, 3_000_000, 2)), problem.variable("y", [4, 3])
    problem.add(x * y >= 4 * 2_999_995)
    solutions = problem.solution_set()
    assert solutions.tuples() == [(2_999_995, 4), (2_999_997, 4), (2_999_999, 4)]
    assert solutions.positions().tolist() == [[1_500_000, 0], [1_500_001, 0], [1_500_002, 0]]
