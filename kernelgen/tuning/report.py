"""The report on tuning, as data: of each problem its kernels, the winner against its floor, and what was refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kernelgen.errors import CellError, ProfileError
from kernelgen.records.summary import Summary, key_of
from kernelgen.records.trial import Trial, failure

if TYPE_CHECKING:
    from kernelgen.records.config import TunedConfig

Row = dict[str, Any]
"""What a chart draws, a mark or a line each: JSON values by name."""


@dataclass(frozen=True)
class Report:
    """One problem, ready to draw.

    title: cell, direction, size and GPU. facts: names and values for people. measured: whether anything was; if not,
    the model's times stand for measured ones. kernels: a row for each trial that stands, in the order of their time.
    tilings: a row for each tile variable of each kernel that is no failure, for parallel coordinates. winner: floor,
    model and measurement of the best. reasons: status, reason, how many kernels, and the tiling of one.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    measured: bool
    kernels: Sequence[Row]
    tilings: Sequence[Row]
    winner: Sequence[Row]
    reasons: Sequence[tuple[str, str, int, str]]


def report(problem: Summary, chosen: Trial | None = None) -> Report:
    """Draw up a problem. chosen: the winner where somebody chose one, else it is the best that the problem knows."""
    best = chosen or problem.best or _likely(problem)
    measured = any(trial.status == "measured" for trial in problem.stands)
    kernels = _kernels(problem, best, measured)
    counts = problem.statuses
    tried = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    facts = [("kernels tried", f"{len(problem.stands)}: {tried}"), ("trials", f"{len(problem.trials):,}")]
    if best is not None:
        facts.append(("winner", _tiling(best)))
        if best.measurement is not None:
            time = best.measurement
            facts.append(
                ("measured", f"{time.median_ms:.4f} ms (10 % to 90 %: {time.p10_ms:.4f} to {time.p90_ms:.4f})")
            )
        if best.validation is not None:
            place = "on the GPU" if best.validation.where == "gpu" else "in the emulator"
            facts.append(
                ("validated", f"{place}, relative error {best.validation.worst:.1e} of {best.validation.tolerance:.1e}")
            )
    facts.append(("compiler", ", ".join(sorted({trial.compiler for trial in problem.trials if trial.compiler}))))
    return Report(
        title=f"{problem.cell} {problem.direction}, {problem.shape}, saves {problem.shape.save}, on {problem.gpu}",
        facts=[(name, value) for name, value in facts if value],
        measured=measured,
        kernels=kernels,
        tilings=_tilings(problem, kernels),
        winner=_winner(problem, best),
        reasons=_reasons(problem),
    )


def of_config(config: TunedConfig) -> Trial:
    """A tuned kernel as the trial that it was."""
    return Trial(
        cell=config.cell.name,
        fingerprint=config.cell.fingerprint,
        shape=config.shape,
        gpu=config.gpu,
        arch=config.arch,
        schedule=config.schedule,
        tiling=dict(config.tiling),
        predicted=config.predicted,
        model_us_per_step=config.model.us_per_step,
        status="measured" if config.measured else "valid",
        source_hash=config.source_hash,
        reported=config.main.reported,
        compiler=config.versions.compiler,
        validation=config.validation,
        measurement=config.measured,
        created=config.created,
        tilesmith=config.versions.tilesmith,
    )


def trials_of_config(config: TunedConfig, known: Sequence[Trial]) -> tuple[Trial, list[Trial]]:
    """The kernel of a configuration, and the trials of its problem among those known (oldest first), it included."""
    chosen = of_config(config)
    same = [trial for trial in known if key_of(trial) == key_of(chosen)]
    if not any(trial.source_hash == chosen.source_hash and trial.status == chosen.status for trial in same):
        same.append(chosen)
    return chosen, same


def model_ms(trial: Trial) -> float:
    """The model's time of a whole pass, milliseconds."""
    return trial.model_us_per_step * trial.shape.seq / 1000


def _likely(problem: Summary) -> Trial | None:
    """Where nothing was measured: what the model says is the fastest of those that were proved right."""
    return min((trial for trial in problem.stands if trial.status == "valid"), key=model_ms, default=None)


def _kernels(problem: Summary, best: Trial | None, measured: bool) -> list[Row]:
    """Seconds count from the first trial; "ms" is what was measured, or the model's where nothing was at all, and
    "best" the least of it so far."""
    stands = sorted(problem.stands, key=lambda trial: trial.created)
    began = _seconds(problem.trials[0])
    rows: list[Row] = []
    least: float | None = None
    for number, trial in enumerate(stands, 1):
        report_, resources = trial.reported, trial.predicted
        taken = trial.measurement.median_ms if trial.measurement and trial.status == "measured" else None
        ms = taken if measured else model_ms(trial) if trial.status in ("valid", "compiled") else None
        least = ms if least is None else min(least, ms) if ms is not None else least
        rows.append(
            {
                "number": number,
                "second": _seconds(trial) - began,
                "status": trial.status,
                "schedule": trial.schedule,
                "tiling": _tiling(trial),
                "ms": ms,
                "best": least,
                "measured_ms": taken,
                "model_ms": model_ms(trial),
                "registers": report_.registers if report_ else None,
                "predicted_registers": resources.registers,
                "shared_memory": resources.shared_memory + report_.static_shared_memory if report_ else None,
                "predicted_shared_memory": resources.shared_memory,
                "spills": report_.spills if report_ else None,
                "error": trial.validation.worst if trial.validation else None,
                "reason": trial.reason[:200],
                "winner": best is not None and trial.source_hash == best.source_hash,
            }
        )
    return rows


def _tilings(problem: Summary, kernels: Sequence[Row]) -> list[Row]:
    """Of each variable the values that occur stand evenly from 0 to 1; a variable with one value says nothing."""
    stands = sorted(problem.stands, key=lambda trial: trial.created)
    values: dict[str, set[int]] = {}
    for trial in stands:
        for name, value in trial.tiling.items():
            values.setdefault(name, set()).add(value)
    ranks = {
        name: {value: i for i, value in enumerate(sorted(found))} for name, found in values.items() if len(found) > 1
    }
    schedules = sorted({trial.schedule for trial in stands})
    if len(schedules) > 1:
        ranks = {"schedule": {i: i for i in range(len(schedules))}, **ranks}
    rows = []
    for trial, kernel in zip(stands, kernels, strict=True):
        if kernel["ms"] is None:
            continue
        for name, rank in ranks.items():
            if name != "schedule" and name not in trial.tiling:
                continue
            value = trial.tiling[name] if name != "schedule" else schedules.index(trial.schedule)
            rows.append(
                {
                    "number": kernel["number"],
                    "variable": name,
                    "value": trial.schedule if name == "schedule" else str(value),
                    "position": rank[value] / max(1, len(rank) - 1),
                    "ms": kernel["ms"],
                    "tiling": kernel["tiling"],
                    "winner": kernel["winner"],
                }
            )
    return rows


def _winner(problem: Summary, best: Trial | None) -> list[Row]:
    """Floor, model and measurement, as far as there are any, in milliseconds."""
    if best is None:
        return []
    rows: list[Row] = []
    floor = _floor(problem)
    if floor is not None:
        rows.append({"what": "floor", "ms": floor, "times": 1.0})
    rows.append({"what": "model", "ms": model_ms(best), "times": model_ms(best) / floor if floor else None})
    if best.measurement is not None:
        ms = best.measurement.median_ms
        rows.append({"what": "measured", "ms": ms, "times": ms / floor if floor else None})
    return rows


def _floor(problem: Summary) -> float | None:
    """Milliseconds; None where the cell or the GPU is not tilesmith's, or the floor is not known."""
    from kernelgen.cells import load_cell
    from kernelgen.hardware.profile import load_profile
    from kernelgen.tuning.floors import recurrence_floor_ms

    try:
        cell, profile = load_cell(problem.cell), load_profile(problem.gpu)
    except (CellError, ProfileError):
        return None
    if cell.fingerprint != problem.fingerprint:
        return None
    return recurrence_floor_ms(cell, problem.shape, profile, problem.direction)


_WORDS = {"refused": "the compiler refused it", "timeout": "it hung", "fault": "it crashed", "wrong": "it is not right"}


def _reasons(problem: Summary) -> list[tuple[str, str, int, str]]:
    """The most frequent first. Failures are told apart by their kind, rejections by their words without numbers."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], Trial] = {}
    for trial in problem.stands:
        if trial.status not in ("rejected", "failed"):
            continue
        words = _WORDS[failure(trial)] if trial.status == "failed" else _without_numbers(trial.reason)
        counts[trial.status, words] += 1
        examples.setdefault((trial.status, words), trial)
    return [
        (status, f"{words}; one: {examples[status, words].reason[:300]}", count, _tiling(examples[status, words]))
        for (status, words), count in counts.most_common()
    ]


def _without_numbers(reason: str) -> str:
    return re.sub(r"\d[\d,.]*", "#", reason)[:120]


def _tiling(trial: Trial) -> str:
    return f"{trial.schedule}({', '.join(f'{name}={value}' for name, value in trial.tiling.items())})"


def _seconds(trial: Trial) -> float:
    return datetime.fromisoformat(trial.created).timestamp()
