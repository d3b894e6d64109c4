"""Trials as files for other programs and other machines: T4, the autotuning community's results in JSON, and CSV.

T4 (github.com/AutoTuningAssociation/autotuning_methodology, schemas/T4.json) has one result for each configuration of
one tuning problem. It holds less than a trial, so every result carries the trial besides, under "tilesmith", from which
it is read again. CSV has a column for each field of a trial and a row for each trial.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from constrint.documents import TooLarge, read_text
from kernelgen.build.compile import Report
from kernelgen.errors import ShapeError, StoreError
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Resources
from kernelgen.records.summary import standing
from kernelgen.records.trial import Measurement, Trial, Validation, failure, installed_version

T4_VERSION = "1.1.0"

MOST_BYTES = 1 << 28
"""Of a file to read: some 100,000 trials."""

NOT_JUDGED = ("compiled",)
"""Statuses that T4 has no word for: neither right nor wrong."""

_PARTS = {
    "shape": Shape,
    "predicted": Resources,
    "reported": Report,
    "validation": Validation,
    "measurement": Measurement,
}
"""The fields of a trial that have fields of their own."""

_JSON_FIELDS = ("tiling", "validation.errors")
"""Columns whose values are JSON objects."""

_INVALIDITY = {"refused": "compile", "timeout": "timeout", "wrong": "correctness", "fault": "runtime"}


def to_t4(trials: Sequence[Trial]) -> dict[str, Any]:
    """The T4 document of the trials of one problem on one GPU, oldest first; times are milliseconds.

    Of each kernel it has the trial that counts, and none of those that were only compiled.
    """
    judged = [trial for trial in standing(trials) if trial.status not in NOT_JUDGED]
    gpus = {trial.gpu for trial in judged}
    return {
        "schema_version": T4_VERSION,
        "metadata": {
            "compute_api": "CUDA",
            "device": ", ".join(sorted(gpus)),
            "autotuner": "tilesmith",
            "autotuner_version": installed_version(),
            "timestamp": min((trial.created for trial in trials), default=""),
            "timeunit": "milliseconds",
        },
        "results": [_result(trial) for trial in judged],
    }


def _result(trial: Trial) -> dict[str, Any]:
    """One result of T4."""
    right = trial.status in ("valid", "measured")
    times: dict[str, Any] = {}
    if trial.compile_seconds is not None:
        times["compilation_time"] = 1e3 * trial.compile_seconds
    measurements: list[dict[str, Any]] = []
    if trial.measurement is not None and trial.status == "measured":
        time = trial.measurement
        times["runtimes"] = [time.median_ms]
        for name, value in (("time", time.median_ms), ("time_p10", time.p10_ms), ("time_p90", time.p90_ms)):
            measurements.append({"name": name, "value": value, "unit": "milliseconds"})
        if time.energy_mj is not None:
            measurements.append({"name": "energy", "value": time.energy_mj, "unit": "millijoules"})
    return {
        "timestamp": trial.created,
        "configuration": {"schedule": trial.schedule, **trial.tiling},
        "objectives": ["time"],
        "times": times,
        "invalidity": "correct" if right else "constraints" if trial.status == "rejected" else _invalidity(trial),
        "correctness": int(right),
        "measurements": measurements,
        "tilesmith": trial.to_dict(),
    }


def _invalidity(trial: Trial) -> str:
    return _INVALIDITY[failure(trial)]


def columns() -> list[str]:
    """The columns of a CSV file: the fields of a trial, those of its parts as "part.field"."""
    names = []
    for field in dataclasses.fields(Trial):
        part = _PARTS.get(field.name)
        names += [f"{field.name}.{own.name}" for own in dataclasses.fields(part)] if part else [field.name]
    return names


def to_csv(trials: Iterable[Trial]) -> str:
    """Every trial as a row, under a row of names; what a trial does not have is empty, objects are JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = columns()
    writer.writerow(names)
    for trial in trials:
        record = trial.to_dict()
        writer.writerow([_cell(name, record) for name in names])
    return text.getvalue()


def _cell(name: str, record: Mapping[str, Any]) -> str:
    """A value as text that _value reads."""
    part, _, own = name.partition(".")
    value = record[part]
    if own:
        value = None if value is None else value.get(own)
    if value is None:
        return ""
    return json.dumps(value) if name in _JSON_FIELDS or not isinstance(value, str) else value


def read_trials(path: Path) -> list[Trial]:
    """The trials of a T4 (.json) or CSV (.csv) file that tilesmith wrote, in its order.

    Raises StoreError for anything else: unreadable, another format, a trial that is none. Nothing is guessed at.
    """
    if path.suffix not in (".json", ".csv"):
        raise StoreError(f"{path} is neither a .json file (T4) nor a .csv file")
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError, TooLarge) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreError(f"cannot read {path}: {reason}") from error
    records = _t4_records(path, text) if path.suffix == ".json" else _csv_records(path, text)
    return [_trial(path, place, record) for place, record in records]


def _t4_records(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Each trial's record, and where it stands."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is no JSON: {error}") from error
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise StoreError(f"{path} is JSON, but no T4 document: it has no list of results")
    for number, result in enumerate(results, 1):
        record = result.get("tilesmith") if isinstance(result, dict) else None
        if record is None:
            raise StoreError(
                f"{path}, result {number}: it holds no trial, such as `tilesmith store export` writes into "
                "each; results of other tuners say too little about a kernel to be kept as trials"
            )
        yield f"result {number}", record


def _csv_records(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    names = columns()
    try:
        heading = next(reader, [])
        if sorted(heading) != sorted(names):
            odd = sorted({*heading} ^ {*names}) or ["a name twice"]
            raise StoreError(f"{path} is no table of trials: its first row differs in {', '.join(odd[:5])}")
        for row in reader:
            place = f"line {reader.line_num}"
            if len(row) != len(heading):
                raise StoreError(f"{path}, {place}: has {len(row)} values, not {len(heading)}")
            record: dict[str, Any] = {}
            for name, cell in zip(heading, row, strict=True):
                part, _, own = name.partition(".")
                value = _value(path, place, name, cell)
                if not own:
                    record[part] = value
                elif value is not None:
                    record.setdefault(part, {})[own] = value
            yield place, record
    except csv.Error as error:
        raise StoreError(f"{path}, line {reader.line_num}: {error}") from error


@cache
def _texts() -> frozenset[str]:
    """The columns that hold text."""
    found = {field.name for field in dataclasses.fields(Trial) if field.type in ("str", "Status")}
    for name, part in _PARTS.items():
        found |= {f"{name}.{own.name}" for own in dataclasses.fields(part) if own.type in ("str", "Place")}
    return frozenset(found)


def _value(path: Path, place: str, name: str, cell: str) -> Any:
    """What a cell of a table says: text as it is, all else JSON; an empty cell is None, or empty text."""
    if name in _texts():
        return cell if cell or "." not in name else None
    if not cell:
        return None
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}, {place}: {name} cannot be {_short(cell)}") from error


@cache
def _checked() -> Any:
    """What checks the types of a trial's record, without converting any."""
    import pydantic

    return pydantic.TypeAdapter(Trial)


def _trial(path: Path, place: str, record: Any) -> Trial:
    """A trial from its record. Raises StoreError for one that is none."""
    import pydantic

    def refuse(why: str) -> StoreError:
        return StoreError(f"{path}, {place}: this is no trial: {why}")

    if not isinstance(record, dict):
        raise refuse(f"it is {_short(record)}")
    unknown = [name for name in record if name not in {field.name for field in dataclasses.fields(Trial)}]
    for name, part in _PARTS.items():
        inner = record.get(name)
        if isinstance(inner, dict):
            known = {field.name for field in dataclasses.fields(part)}
            unknown += [f"{name}.{own}" for own in inner if own not in known]
    if unknown:
        raise refuse(f"unknown field {_short(unknown[0])}")
    try:
        trial: Trial = _checked().validate_json(json.dumps(record), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise refuse(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ShapeError, ValueError, RecursionError) as error:
        raise refuse(str(error)) from error
    why = _unsound(trial)
    if why:
        raise refuse(why)
    return dataclasses.replace(trial, created=_utc(trial.created))


def _unsound(trial: Trial) -> str:
    """What in a trial contradicts the rest; empty where nothing does."""
    time = trial.measurement
    if trial.status == "measured" and time is None:
        return "it was measured, but has no measurement"
    if time is not None and time.energy_mj is not None and not 0 < time.energy_mj < math.inf:
        return f"its energy is {time.energy_mj} millijoules"
    if time is not None:
        numbers = (time.p10_ms, time.median_ms, time.p90_ms)
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            return f"its times are {numbers} milliseconds"
        if not time.p10_ms <= time.median_ms <= time.p90_ms:
            return f"its median, {time.median_ms} ms, lies outside its 10th and 90th percentile"
    if trial.status in ("measured", "valid") and (trial.validation is None or not trial.validation.errors):
        return "it is said to be right, but nothing says how it was validated"
    if not math.isfinite(trial.model_us_per_step):
        return f"model_us_per_step is {trial.model_us_per_step}"
    if not trial.cell or not trial.gpu or not trial.schedule:
        return "it names no cell, GPU or schedule"
    if _utc(trial.created) == "":
        return f"created is {_short(trial.created)}, no time in ISO 8601 with its zone"
    return ""


def _utc(text: str) -> str:
    """A time in ISO 8601 as every trial has it, in UTC; empty where it is none, or has no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return "" if time.tzinfo is None else time.astimezone(UTC).isoformat(timespec="seconds")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
