"""Classes of problems on which one engine may be far ahead of the other: seconds of each, and of both together.

    python benchmarks/classes.py [--only knapsack-120] [--runs 3] [--limit 60] [--engine auto --engine cp-sat]

Any best (or any) solution is asked for; the engines' objectives are compared. The least of --runs counts, wall-clock,
OR-tools loaded. `auto` uses two threads: on a machine that is busy with other work it is slower than it would be.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence

import click

from constrint import ConstrintError, Expr, Problem, all_different, cumulative, total

Question = tuple[Problem, Expr | None]
"""A problem and what is maximised."""
Jobs = Sequence[Sequence[tuple[int, int]]]
"""Of each job, machine and duration of each step."""


def knapsack(items: int, limits: int, largest: int = 1000) -> Question:
    """0/1 knapsack of several limits, random weights and values up to ``largest``."""
    rng = random.Random(items + limits)
    problem = Problem("knapsack")
    taken = [problem.variable(f"item{i}", [0, 1]) for i in range(items)]
    for _ in range(limits):
        weights = [rng.randint(1, largest) for _ in taken]
        problem.add(total(w * x for w, x in zip(weights, taken, strict=True)) <= sum(weights) // 2)
    return problem, total(rng.randint(1, largest) * x for x in taken)


def queens(size: int) -> Question:
    """Queens, pairwise unequal."""
    problem = Problem("queens")
    rows = [problem.variable(f"row{i}", range(size)) for i in range(size)]
    for (i, a), (j, b) in itertools.combinations(enumerate(rows), 2):
        for condition in (a != b, a + i != b + j, a - i != b - j):
            problem.add(condition)
    return problem, None


def pigeons(count: int, holes: int, together: bool) -> Question:
    """More pigeons than holes, pairwise unequal or by ``all_different``."""
    problem = Problem("pigeons")
    birds = [problem.variable(f"bird{i}", range(holes)) for i in range(count)]
    if together:
        problem.add(all_different(birds))
    else:
        for a, b in itertools.combinations(birds, 2):
            problem.add(a != b)
    return problem, None


FT06 = (
    ((2, 1), (0, 3), (1, 6), (3, 7), (5, 3), (4, 6)),
    ((1, 8), (2, 5), (4, 10), (5, 10), (0, 10), (3, 4)),
    ((2, 5), (3, 4), (5, 8), (0, 9), (1, 1), (4, 7)),
    ((1, 5), (0, 5), (2, 5), (3, 3), (4, 8), (5, 9)),
    ((2, 9), (1, 3), (4, 5), (5, 4), (0, 3), (3, 1)),
    ((1, 3), (3, 3), (5, 9), (0, 10), (4, 4), (2, 1)),
)
"""Fisher and Thompson's six jobs on six machines (1963): machine and duration of each step. At best 55."""


def random_jobs(jobs: int, machines: int) -> Jobs:
    """Random durations of 1 to 10."""
    rng = random.Random(jobs * machines)
    return [[(machine, rng.randint(1, 10)) for machine in rng.sample(range(machines), machines)] for _ in range(jobs)]


def job_shop(jobs: Jobs) -> Question:
    """The makespan is minimised."""
    problem = Problem("job shop")
    horizon = 20 * len(jobs)
    end = problem.variable("end", range(horizon))
    on: dict[int, list[tuple[Expr, int]]] = {}
    for job, steps in enumerate(jobs):
        ready: Expr | None = None
        for machine, length in steps:
            start = problem.variable(f"s{job}_{machine}", range(horizon))
            if ready is not None:
                problem.add(start >= ready)
            ready = start + length
            on.setdefault(machine, []).append((start, length))
        assert ready is not None
        problem.add(end >= ready)
    for queue in on.values():
        for (a, p), (b, q) in itertools.combinations(queue, 2):
            problem.add((a + p <= b) | (b + q <= a))
    return problem, -end


def tasks(count: int) -> Question:
    """Tasks that share a resource; the makespan is minimised."""
    rng = random.Random(count)
    problem = Problem("cumulative")
    starts = [problem.variable(f"s{i}", range(4 * count)) for i in range(count)]
    lengths, demands = [rng.randint(2, 8) for _ in starts], [rng.randint(1, 4) for _ in starts]
    end = problem.variable("end", range(5 * count))
    problem.add(cumulative(starts, lengths, demands, 6))
    for start, length in zip(starts, lengths, strict=True):
        problem.add(end >= start + length)
    return problem, -end


def coupled_sums(parameters: int) -> Question:
    """Tuning parameters of six values each under two sums over all of them."""
    rng = random.Random(parameters)
    problem = Problem("coupled sums")
    values = [problem.variable(f"p{i}", sorted(rng.sample(range(1, 65), 6))) for i in range(parameters)]
    for _ in range(2):
        weights = [rng.randint(1, 9) for _ in values]
        problem.add(total(w * x for w, x in zip(weights, values, strict=True)) <= 24 * sum(weights))
    return problem, total(rng.randint(1, 20) * x for x in values)


def equal_sums(count: int) -> Question:
    """Variables of 0 to 5 under two equations over all of them; any solution."""
    rng = random.Random(count)
    problem = Problem("equal sums")
    values = [problem.variable(f"x{i}", range(6)) for i in range(count)]
    chosen = [rng.randrange(6) for _ in values]
    for _ in range(2):
        weights = [rng.randint(1, 99) for _ in values]
        known = sum(w * x for w, x in zip(weights, chosen, strict=True))
        problem.add(total(w * x for w, x in zip(weights, values, strict=True)) == known)
    return problem, None


def long_sums(count: int) -> Question:
    """Two sums of so many terms."""
    rng = random.Random(count)
    problem = Problem("long sums")
    values = [problem.variable(f"x{i}", range(4)) for i in range(count)]
    for _ in range(2):
        problem.add(total(rng.randint(1, 9) * x for x in values) <= 6 * count)
    return problem, total(rng.randint(1, 9) * x for x in values)


def large_divisors() -> Question:
    """Two factors of a number beyond 2**61, with the least sum."""
    number = 2**4 * 3**30 * 5 * 7 * 11 * 13
    problem = Problem("large divisors")
    x, y = problem.variable("x", range(1, 2**40)), problem.variable("y", range(1, 2**40))
    problem.add(x * y == number)
    return problem, -(x + y)


REFUSED = "refused"
CLASSES: dict[str, Callable[[], Question]] = {
    "knapsack-120": lambda: knapsack(120, 1),
    "knapsack-120-3": lambda: knapsack(120, 3),
    "knapsack-120-4": lambda: knapsack(120, 4),
    "knapsack-120-5": lambda: knapsack(120, 5),
    "knapsack-60-3": lambda: knapsack(60, 3),
    "knapsack-60-5": lambda: knapsack(60, 5),
    "large-weights-40": lambda: knapsack(40, 2, 10**9),
    "queens-20": lambda: queens(20),
    "queens-40": lambda: queens(40),
    "pigeons-11": lambda: pigeons(11, 10, together=False),
    "all-different-11": lambda: pigeons(11, 10, together=True),
    "job-shop-6x6": lambda: job_shop(random_jobs(6, 6)),
    "ft06": lambda: job_shop(FT06),
    "cumulative-10": lambda: tasks(10),
    "coupled-sums-60": lambda: coupled_sums(60),
    "equal-sums-60": lambda: equal_sums(60),
    "long-sums-300": lambda: long_sums(300),
    "large-divisors": large_divisors,
}


def measure(name: str, engine: str, limit: float) -> tuple[float, str]:
    """Seconds, and what was answered."""
    problem, objective = CLASSES[name]()
    start = time.perf_counter()
    try:
        if objective is None:
            result = problem.solve(prefer=None, time_limit=limit, engine=engine)
        else:
            result = problem.best(maximize=objective, prefer=None, time_limit=limit, engine=engine)
    except ConstrintError:  # CP-SAT holds no numbers beyond 2**61
        return time.perf_counter() - start, REFUSED
    seconds = time.perf_counter() - start
    known = result.status if objective is None else f"{result.objective}"
    return seconds, known if result.proven else f"{known} (not proven)"


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=click.Choice(list(CLASSES)), help="classes; all by default")
@click.option("--engine", "engines", multiple=True, default=("cp-sat", "auto", "native"))
@click.option("--runs", default=3, help="repeats; the least counts")
@click.option("--limit", default=20.0, help="seconds a question")
def main(only: tuple[str, ...], engines: tuple[str, ...], runs: int, limit: float) -> None:
    import ortools.sat.python.cp_model  # noqa: F401  (its loading is measured of no engine)

    different = []
    for name in only or CLASSES:
        answers = {}
        for engine in engines:
            found = [measure(name, engine, limit)]
            while len(found) < runs and found[-1][0] < 5:
                found.append(measure(name, engine, limit))
            seconds, answers[engine] = min(found)
            click.echo(f"{name:18} {engine:8} {seconds:9.4f} s  {answers[engine]}")
        proven = {answer for answer in answers.values() if "not proven" not in answer and answer != REFUSED}
        if len(proven) > 1:
            different.append(name)
    if different:
        raise click.ClickException(f"the engines differ: {', '.join(different)}")


if __name__ == "__main__":
    main()
