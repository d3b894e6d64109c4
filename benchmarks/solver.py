"""Count and list tuning spaces with constrint, Kernel Tuner, python-constraint2, pyATF and CP-SAT: seconds, memory.

    python benchmarks/solver.py --spaces FOLDER
    python benchmarks/solver.py --system constrint --system python-constraint2 --runs 5

FOLDER holds spaces in JSON: {"tune_params": {name: [values]}, "restrictions": ["Python expression"]}, and, if it is
known, "expected_count", against which every count is checked. The peers come with `pip install tilesmith[bench]`.

Each system reads a space in a process of its own. Seconds are wall-clock from the parsed JSON to the answer, the
import of the library left out; the least of --runs. On a busy machine the processor's seconds, in the JSON of --out,
say more. Memory is what the process's peak grew by after its imports.

"kernel-tuner" is its Searchspace (`pip install kernel_tuner`), "constrint.kernel_tuner" what takes its place.
"count" is the number of configurations (pyATF: its chain of trees, which knows it); "list" is every configuration:
a NumPy table (constrint), a list of tuples (python-constraint2), or CP-SAT's enumeration through constrint, one worker.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT.parent / "shared" / "spaces"
UNLIMITED = 2**40
"""Threads of a block: the spaces state their own limits."""
Space = dict[str, Any]


def constrint_count(space: Space) -> int:
    """Count without listing."""
    from constrint import load_space

    return load_space(space).count()


def constrint_list(space: Space) -> int:
    """An int64 table, one column a parameter."""
    from constrint import load_space

    return len(load_space(space).to_numpy())


def cpsat_list(space: Space) -> int:
    """Every solution CP-SAT enumerates."""
    from constrint import load_space

    return load_space(space).count(engine="cp-sat")


def python_constraint_list(space: Space) -> int:
    """Kernel Tuner's way: restrictions as strings, the default (optimised backtracking) solver, ordered tuples."""
    from constraint import Problem

    problem = Problem()
    for name, values in space["tune_params"].items():
        problem.addVariable(name, values)
    for restriction in space.get("restrictions", ()):
        problem.addConstraint(restriction)
    return len(problem.getSolutionsOrderedList(list(space["tune_params"])))


def kernel_tuner_list(space: Space) -> int:
    """Kernel Tuner's search space with its default solver, restrictions and all: a list of tuples, indexed."""
    from kernel_tuner.searchspace import Searchspace

    return int(Searchspace(space["tune_params"], space.get("restrictions", []), UNLIMITED).size)


def stand_in_count(space: Space) -> int:
    """What takes its place, its size known and a hundred configurations drawn."""
    from constrint.kernel_tuner import Searchspace

    found = Searchspace(space["tune_params"], space.get("restrictions", []), UNLIMITED)
    found.solutions.sample(min(100, found.size), seed=1)
    return found.size


def stand_in_list(space: Space) -> int:
    """The same, and its list of tuples."""
    from constrint.kernel_tuner import Searchspace

    return len(Searchspace(space["tune_params"], space.get("restrictions", []), UNLIMITED).list)


def dicts(space: Space) -> int:
    """Every configuration as a dictionary."""
    from constrint import load_space

    return len(load_space(space).solution_set().dicts())


def pyatf_tree(space: Space) -> Any:
    """Each restriction is put on the last of its parameters, as pyATF asks for."""
    from pyatf import TP, Set
    from pyatf.search_space import SearchSpace

    names = list(space["tune_params"])
    own: dict[str, list[str]] = {name: [] for name in names}
    for restriction in space.get("restrictions", ()):
        used = [name for name in names if re.search(rf"\b{re.escape(name)}\b", restriction)]
        own[used[-1]].append(restriction)
    parameters = []
    for name, restrictions in own.items():
        joined = " and ".join(f"({restriction})" for restriction in restrictions)
        used = [other for other in names if re.search(rf"\b{re.escape(other)}\b", joined)]
        condition = eval(f"lambda {', '.join(used)}: {joined}") if joined else None  # the user's own file
        parameters.append(TP(name, Set(*space["tune_params"][name]), condition))
    return SearchSpace(*parameters, verbosity=0)


def pyatf_count(space: Space) -> int:
    """The size of the chain of trees."""
    return int(pyatf_tree(space).constrained_size)


SYSTEMS: dict[str, dict[str, Callable[[Space], int]]] = {
    "constrint": {"count": constrint_count, "list": constrint_list, "dicts": dicts},
    "constrint.kernel_tuner": {"count": stand_in_count, "list": stand_in_list},
    "kernel-tuner": {"list": kernel_tuner_list},
    "python-constraint2": {"list": python_constraint_list},
    "pyatf": {"count": pyatf_count},
    "cp-sat": {"list": cpsat_list},
}
IMPORTS = {
    "constrint": ("constrint.factored", "constrint.listing", "constrint.native_diagram", "constrint.text", "numpy"),
    "constrint.kernel_tuner": (
        "constrint.kernel_tuner",
        "constrint.factored",
        "constrint.native_diagram",
        "constrint.listing",
    ),
    "kernel-tuner": ("kernel_tuner.searchspace",),
    "python-constraint2": ("constraint",),
    "pyatf": ("pyatf", "pyatf.search_space"),
    "cp-sat": ("constrint.cpsat", "constrint.text", "ortools.sat.python.cp_model"),
}


def child(system: str, task: str, path: str, runs: int) -> None:
    """One system on one space, in this process; prints JSON."""
    import importlib

    space = json.loads(Path(path).read_text())
    try:
        for module in IMPORTS[system]:
            importlib.import_module(module)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, busy = [], []
    count = 0
    for _ in range(runs):
        start, started = time.perf_counter(), time.process_time()
        count = SYSTEMS[system][task](space)
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - started)
        if sum(seconds) > 10:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = (peak - before) / 1024
    print(json.dumps({"count": count, "seconds": min(seconds), "processor": min(busy), "megabytes": megabytes}))


def measure(system: str, task: str, path: Path, runs: int, limit: float) -> dict[str, Any]:
    """The same in a process of its own: what ``child`` prints, or {"failed"}, or {"late"} after ``limit`` seconds."""
    call = [sys.executable, __file__, "child", system, task, str(path), str(runs)]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"late": limit}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def cell(result: dict[str, Any] | None, expected: int | None) -> str:
    """What the table says of one measurement."""
    if result is None:
        return ""
    if "late" in result:
        return f"> {result['late']:g} s"
    if "missing" in result:
        return "not installed"
    if "failed" in result:
        return "failed"
    wrong = "" if expected is None or result["count"] == expected else f" WRONG ({result['count']:,})"
    return f"{result['seconds']:.4f} s {result['megabytes']:4.0f} MB{wrong}"


@click.command(help=__doc__)
@click.option("--spaces", type=click.Path(path_type=Path), default=None, help="folder of spaces")
@click.option("--system", "systems", multiple=True, type=click.Choice(list(SYSTEMS)), default=tuple(SYSTEMS))
@click.option("--only", multiple=True, help="names of spaces; all by default")
@click.option("--runs", default=3, help="repeats; the least counts")
@click.option("--limit", default=120.0, help="seconds per system and space")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="a JSON file for the results")
def main(
    spaces: Path | None, systems: tuple[str, ...], only: tuple[str, ...], runs: int, limit: float, out: Path | None
) -> None:
    folder = spaces or DEFAULT
    paths = [path for path in sorted(folder.glob("*.json")) if not only or path.stem in only]
    if not paths:
        raise click.ClickException(f"no spaces (*.json) in {folder}; pass a folder of them with --spaces")
    tasks = [(system, task) for system in systems for task in SYSTEMS[system]]
    results: dict[str, Any] = {}
    wrong = []
    for path in paths:
        expected = json.loads(path.read_text()).get("expected_count")
        click.echo(f"{path.stem}" + ("" if expected is None else f" ({expected:,} configurations)"))
        for system, task in tasks:
            found = measure(system, task, path, runs, limit)
            results.setdefault(path.stem, {})[f"{system} {task}"] = found
            click.echo(f"    {system + ' ' + task:28} {cell(found, expected)}")
            if "failed" in found:
                click.echo(f"        {found['failed']}")
            if expected is not None and found.get("count", expected) != expected:
                wrong.append(f"{path.stem} by {system}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
    if wrong:
        raise click.ClickException(f"wrong counts: {', '.join(wrong)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        sys.path.insert(0, str(ROOT))
        child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
