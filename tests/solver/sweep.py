"""Random problems against brute force, as many as asked for: every question, native and Python engines.

    python tests/solver/sweep.py [--count 20000] [--start 0] [--slowest 1.0]

Prints the slowest question. Exits with 1 on the first wrong answer, or question of over --slowest processor seconds.
"""

from __future__ import annotations

import argparse
import sys
import time

from brute_force import check_everything

from constrint import has_core


def sweep(count: int, start: int = 0, slowest: float = 1.0, largest: int = 1500, report: bool = False) -> float:
    """Check problems ``start`` to ``start + count`` with each engine; the seconds of the slowest question."""
    engines = ["native", "python"] if has_core() else ["python"]
    worst, began = 0.0, time.perf_counter()
    for seed in range(start, start + count):
        for engine in engines:
            seconds = check_everything(seed, engine, largest=largest)
            assert seconds <= slowest, f"seed {seed}, engine {engine}: a question took {seconds:.2f} s"
            worst = max(worst, seconds)
        if report and (seed + 1 - start) % 1000 == 0:
            print(f"{seed + 1 - start:,} problems, {time.perf_counter() - began:.0f} s", flush=True)
    return worst


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--slowest", type=float, default=1.0)
    arguments = parser.parse_args()
    try:
        worst = sweep(arguments.count, arguments.start, arguments.slowest, report=True)
    except AssertionError as error:
        print(f"wrong: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.count:,} problems, every answer right; the slowest question took {worst:.3f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
