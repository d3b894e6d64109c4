"""Random problems against brute force, as many as asked for: every question, native and Python engines.

A third of them are over integers, with every operator; a third over values of every kind; a third hold constraints over
many variables at once.

    python tests/solver/sweep.py [--count 20000] [--start 0] [--slowest 1.0]

Prints every wrong answer, and for each engine and question the seconds that the slowest took, with its seed. Exits
with 1 where an answer was wrong or a question took more than --slowest seconds of the processor, which the load of
the machine does not change; the wall clock is printed beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from brute_force import check_everything

from constrint import has_core

Record = tuple[float, int]
"""Seconds, and the seed of the problem."""


@dataclass
class Report:
    """problems: how many were asked about. wrong: what was. busy, wall: of each engine and question, the slowest."""

    problems: int = 0
    wrong: list[str] = field(default_factory=list)
    busy: dict[tuple[str, str], Record] = field(default_factory=dict)
    wall: dict[tuple[str, str], Record] = field(default_factory=dict)

    def slowest(self) -> float:
        """The seconds of the processor that the slowest question took."""
        return max((seconds for seconds, _ in self.busy.values()), default=0.0)

    def lines(self) -> Iterator[str]:
        """What to print of it."""
        yield f"{self.problems:,} problems, {len(self.wrong)} wrong answers; the slowest of each question, in seconds:"
        for (engine, question), (busy, seed) in sorted(self.busy.items()):
            wall, other = self.wall[engine, question]
            words = f"processor {busy:.3f} (seed {seed}), wall clock {wall:.3f} (seed {other})"
            yield f"  {engine:7s} {question:10s} {words}"


def sweep(count: int, start: int = 0, largest: int = 1500, progress: bool = False) -> Report:
    """Check problems ``start`` to ``start + count`` with each engine."""
    report = Report()
    began = time.perf_counter()
    for seed in range(start, start + count):
        for engine in ["native", "python"] if has_core() else ["python"]:
            try:
                kinds = [{}, {"values": True}, {"groups": True}]
                seconds = check_everything(seed, engine, largest=largest, **kinds[seed % 3])
            except AssertionError as error:
                report.wrong.append(str(error))
                continue
            except Exception as error:  # whatever it is, it is wrong, and the others are asked all the same
                report.wrong.append(f"seed {seed}, engine {engine}: {type(error).__name__}: {error}")
                continue
            for question, (busy, wall) in seconds.items():
                key = engine, question
                report.busy[key] = max(report.busy.get(key, (0.0, seed)), (busy, seed))
                report.wall[key] = max(report.wall.get(key, (0.0, seed)), (wall, seed))
        report.problems += 1
        if progress and report.problems % 1000 == 0:
            so_far = time.perf_counter() - began
            print(f"{report.problems:,} problems, {len(report.wrong)} wrong, {so_far:.0f} s", flush=True)
    return report


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--slowest", type=float, default=1.0)
    arguments = parser.parse_args()
    report = sweep(arguments.count, arguments.start, progress=True)
    for text in report.wrong:
        print(f"wrong: {text}")
    for line in report.lines():
        print(line)
    return int(bool(report.wrong) or report.slowest() > arguments.slowest)


if __name__ == "__main__":
    raise SystemExit(main())
