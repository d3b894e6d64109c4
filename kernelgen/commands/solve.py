"""tilesmith solve: the solver for itself."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from kernelgen.commands.console import counted, print_fields, print_json, print_table, remark, working
from kernelgen.commands.options import Seconds, Whole, json_option

if TYPE_CHECKING:
    from constrint import Expr, Problem
    from kernelgen.hardware.profile import Profile

NEAR = 1.0
"""Seconds in which --explain says how near a conflict comes to each of its limits."""
SHOWN = 100
"""Solutions that --all lists in a table unless --limit says otherwise."""


@click.command()
@click.argument("file", type=click.Path())
@click.option("--count", is_flag=True, help="Count the solutions.")
@click.option("--estimate", is_flag=True, help="Say about how many solutions there are, where --count takes long.")
@click.option("--all", is_flag=True, help="List the solutions.")
@click.option("--best", metavar="EXPR", help="Find the solution with the smallest value of an expression.")
@click.option("--maximize", is_flag=True, help="With --best: the largest value instead.")
@click.option("--explain", is_flag=True, help="Say which constraints clash.")
@click.option(
    "--gpu",
    metavar="NAME",
    help="The GPU whose limits the expressions of a space may name (`tilesmith gpus`), a profile file, or auto: the "
    "one in this machine. By default the one that the space itself names.",
)
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "native", "python", "cp-sat"]),
    help="native: this solver; python: the same without its C++ core; cp-sat: OR-tools; auto: native, and OR-tools "
    "beside it where the answer takes longer than a moment.",
)
@click.option("--limit", type=Whole(min=1), metavar="N", help="With --all: list at most N solutions.")
@click.option("--seconds", type=Seconds(min=0, min_open=True), metavar="S", help="Give up after S seconds.")
@json_option
def command(
    file: str,
    best: str | None,
    maximize: bool,
    gpu: str | None,
    engine: str,
    limit: int | None,
    seconds: float | None,
    as_json: bool,
    **asked: bool,
) -> None:
    """Solve an integer-constraint problem.

    FILE is ConstrINT text, or JSON or YAML with `tune_params` (a name and a list of values each: numbers, text, true,
    false, null) and `restrictions` (Python expressions; they are parsed, never run); it may have `definitions`, names
    for expressions, and `gpu`, whose limits all of them may use: max_shared_memory_per_block, blocks_per_sm(registers,
    shared_memory, threads) and others. "infeasible" is a proof.

    \b
    Examples:
      tilesmith solve problem.txt
      tilesmith solve space.json --count
      tilesmith solve space.json --estimate
      tilesmith solve space.json --all --limit 10
      tilesmith solve problem.txt --best "tile_x * tile_y" --maximize --json
      tilesmith solve problem.txt --explain
      tilesmith solve examples/spaces/gemm.yaml --gpu l4 --best "stages" --maximize
    """
    questions = [name for name in ("count", "estimate", "all", "explain") if asked[name]]
    if len(many := [*(["best"] if best is not None else []), *questions]) > 1:
        raise click.UsageError(f"--{many[0]} and --{many[1]} are two questions; ask one at a time")
    question = next(iter(questions), None)
    if maximize and best is None:
        raise click.UsageError("--maximize says in which direction --best EXPR goes; give both")
    if limit is not None and question != "all":
        raise click.UsageError("--limit is for --all")
    if seconds is not None and question == "all":
        raise click.UsageError("--seconds does not go with --all; use --limit")
    from constrint import TimeLimit, has_core

    problem = _read(file, gpu)
    for words in _doubts(problem, file):
        remark(words)
    if engine in ("auto", "native") and not has_core():
        remark("note: the C++ core is missing, so the Python engine answers (`tilesmith doctor` says why)")
    start = time.perf_counter()
    try:
        with working(f"solving {file}"):
            answer = _answer(problem, question, best, maximize, engine, limit if limit or as_json else SHOWN, seconds)
    except TimeLimit as error:
        remark(str(error))
        answer = {"status": "unknown"}
    answer["seconds"] = round(time.perf_counter() - start, 6)
    with _any_digits():
        words = answer.pop("words", None)
        if as_json:
            print_json(answer)
        elif words is not None:
            click.echo(f"{words} ({answer['seconds']:.3f} s)")
        else:
            _print(answer)


def _read(file: str, gpu: str | None) -> Problem:
    """The problem of a file, in which a space may use the limits of a GPU: that of --gpu, else the one it names."""
    from constrint import ConstrintError, read_problem
    from constrint.vocabulary import NONE, Vocabulary

    spaces = 0

    def words(document: Mapping[str, Any]) -> Vocabulary:
        nonlocal spaces
        spaces += 1
        named = document.get("gpu") if gpu is None else gpu
        if named is None:
            return NONE
        if not isinstance(named, str):
            raise ConstrintError(f"gpu in {file} must be the name of a GPU, not {named!r}")
        from kernelgen.hardware.vocabulary import vocabulary

        return vocabulary(_profile(named))

    problem = read_problem(file, words)
    if gpu is not None and not spaces:
        raise click.UsageError(f"--gpu is for spaces, whose expressions may name its limits; {file} is none")
    return problem


def _doubts(problem: Problem, file: str) -> Iterator[str]:
    """What makes it likely that a file does not say what was meant, in words."""
    from constrint.constrint_text import DEFAULT_DOMAIN

    if not problem.domains:
        yield f"note: {file} has no variables, so there is nothing to choose"
    free = {name for name, domain in problem.domains.items() if domain == DEFAULT_DOMAIN}
    uses = Counter(name for constraint in problem.constraints for name in constraint.condition.variables())
    defined = {_defined(constraint.condition) for constraint in problem.constraints}
    for name in free:
        near = get_close_matches(name, problem.domains.keys() - {name}, n=1, cutoff=0.75)
        if uses[name] == 1 and name not in defined and near:
            yield (
                f"note: {name} is in one statement alone and has no list of values, so it is any whole number from 1 "
                f"to 2**30; did you mean {near[0]}?"
            )


def _defined(condition: Expr) -> str:
    """The variable that a condition equates with something, if it is one."""
    return next((side.name for side in condition.args if condition.op == "==" and side.op == "var"), "")


def _profile(name: str) -> Profile:
    from kernelgen.hardware.profile import load_profile

    if name != "auto":
        return load_profile(name)
    from kernelgen.tuning.tune import resolve_gpu  # the driver, which takes long to import, is asked then alone

    return resolve_gpu(name)[0]


@contextmanager
def _any_digits() -> Iterator[None]:
    """Let numbers be printed however long they are: thousands of variables have counts of thousands of digits."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def _answer(
    problem: Problem,
    question: str | None,
    best: str | None,
    maximize: bool,
    engine: str,
    limit: int | None,
    seconds: float | None,
) -> dict[str, Any]:
    """Ask the one question that was meant. Raises TimeLimit."""
    if question == "all":
        return _all(problem, engine, limit)
    if question == "count":
        count = problem.count(time_limit=seconds, engine=engine)
        return {"status": "feasible" if count else "infeasible", "count": count}
    if question == "estimate":
        found = problem.estimate(time_limit=seconds, engine=engine, seed=0)
        status = "feasible" if found.lower else "unknown" if found.upper else "infeasible"
        sizes = {"count": found.count, "error": found.error, "least": found.lower, "most": found.upper}
        return {"status": status, "estimate": sizes, "words": str(found)}
    if question == "explain":
        from constrint.nearest import nearest

        core = problem.explain(time_limit=seconds, engine=engine)
        return {
            "status": "infeasible" if core else "feasible",
            "core": [constraint.label for constraint in core],
            "nearest": [
                None if near is None else {"least" if near.least else "most": near.value}
                for near in nearest(problem, core, NEAR if seconds is None else min(NEAR, seconds))
            ],
            "definitions": [constraint.label for constraint in core.definitions],
        }
    if best is not None:
        return _best(problem, best, maximize, engine, seconds)
    result = problem.solve(time_limit=seconds, engine=engine)
    return {"status": result.status, "solution": result.solution}


def _all(problem: Problem, engine: str, limit: int | None) -> dict[str, Any]:
    """The solutions, at most ``limit``."""
    found = list(itertools.islice(problem.solutions(engine=engine), limit))
    if limit is not None and len(found) == limit:
        remark(f"the first {counted(limit, 'solution')}; there may be more (--limit N, --count)")
    return {"status": "feasible" if found else "infeasible", "solutions": found}


def _best(problem: Problem, text: str, maximize: bool, engine: str, seconds: float | None) -> dict[str, Any]:
    """The best solution by an expression."""
    from constrint.python_text import parse_number

    objective = parse_number(text, problem.domains, "--best", problem.vocabulary)
    if objective.is_condition:
        raise click.UsageError(f"--best needs a number to make small, not the condition {text!r}")
    result = (
        problem.best(maximize=objective, time_limit=seconds, engine=engine)
        if maximize
        else problem.best(minimize=objective, time_limit=seconds, engine=engine)
    )
    if result.status == "feasible" and not result.proven:
        remark(f"not proved to be the best: the time limit passed; no solution goes beyond {result.bound}")
    return {"status": result.status, "solution": result.solution, "objective": result.objective}


_NEXT = {
    "infeasible": "--explain says which constraints clash",
    "unknown": "the time that --seconds allows passed before an answer was found",
}
"""What to say after an answer that is none yet."""


def _print(answer: dict[str, Any]) -> None:
    """Print an answer for people."""
    status, seconds = answer["status"], answer["seconds"]
    if answer.get("solutions"):
        names = list(answer["solutions"][0])
        rows = [[str(solution[name]) for name in names] for solution in answer["solutions"]]
        print_table(names, rows, right=names)
        return
    if answer.get("count") is not None:
        click.echo(f"{counted(answer['count'], 'solution')} ({seconds:.3f} s)")
        return
    if answer.get("core"):
        click.echo("infeasible: these constraints cannot hold together, and without any one of them the others can:")
        for label, near in zip(answer["core"], answer["nearest"], strict=True):
            allowed = "".join(f" (the others allow at {which} {value:,})" for which, value in (near or {}).items())
            click.echo(f"  {label}{allowed}")
        if answer["definitions"]:
            click.echo("where, by definition:")
        for label in answer["definitions"]:
            click.echo(f"  {label}")
        return
    click.echo(f"{status} ({seconds:.3f} s)")
    if status in _NEXT:
        remark(_NEXT[status])
    if answer.get("objective") is not None:
        click.echo(f"objective {answer['objective']}")
    if answer.get("solution"):
        print_fields([(name, str(value)) for name, value in answer["solution"].items()])
