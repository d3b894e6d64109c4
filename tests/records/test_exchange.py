"""Trials as files: they come back as they were, bad files are refused in words, and merging loses nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from trials import SHAPE, trial

from kernelgen.errors import StoreError
from kernelgen.records.exchange import columns, read_trials, to_csv, to_t4
from kernelgen.records.store import Store
from kernelgen.records.summary import standing, summaries
from kernelgen.records.trial import IN_EMULATOR, ON_GPU, REFUSED, Measurement, Trial, failure

pytestmark = pytest.mark.unit

ALL = [
    trial(1, "compiled", measurement=None),
    trial(2, "rejected"),
    trial(3, ms=0.25),
    trial(4, "valid"),
    trial(5, "failed", reason=f"{ON_GPU}took longer than its limit of 30 s and was stopped"),
    trial(6, reported=None, compile_seconds=None, cell="a,\"b'", measurement=Measurement(0.3, 0.2, 0.4, 9, 21.5)),
]


def test_a_table_holds_every_trial_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(to_csv(ALL))
    assert path.read_text().splitlines()[0].split(",") == columns()
    assert read_trials(path) == ALL


def test_t4_has_a_result_for_each_judged_kernel(tmp_path: Path) -> None:
    again = trial(7, ms=0.2, source_hash="s3", tiling=ALL[2].tiling)
    document = to_t4([*ALL[:5], again])
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["schema_version"])
    assert document["metadata"]["timeunit"] == "milliseconds"
    assert document["metadata"]["device"] == "h200"
    results = document["results"]
    assert [(each["invalidity"], each["correctness"]) for each in results] == [
        ("constraints", 0),
        ("correct", 1),
        ("correct", 1),
        ("timeout", 0),
    ]
    (fast,) = [each for each in results if each["measurements"]]
    assert fast["configuration"] == {"schedule": "resident", "units_per_warp": 8, "batch_tile": 24}
    assert fast["times"] == {"compilation_time": 250.0, "runtimes": [0.2]}
    assert fast["measurements"][0] == {"name": "time", "value": 0.2, "unit": "milliseconds"}
    assert {"timestamp", "objectives"} <= fast.keys()
    path = tmp_path / "t4.json"
    path.write_text(json.dumps(document))
    assert read_trials(path) == [ALL[1], again, ALL[3], ALL[4]]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (f"{REFUSED}no such header", "refused"),
        (f"{ON_GPU}took longer than its limit of 30 s and was stopped", "timeout"),
        (f"{ON_GPU}h differs from the reference", "wrong"),
        (f"{IN_EMULATOR}3 of 4 elements of h were never written", "wrong"),
        (f"{ON_GPU}running the kernel failed: an illegal memory access", "fault"),
        (f"{IN_EMULATOR}a race", "fault"),
    ],
)
def test_why_a_trial_failed_is_read_from_its_reason(reason: str, kind: str) -> None:
    assert failure(trial(1, "failed", reason=reason)) == kind


def _t4(change: Any) -> str:
    document = to_t4([trial(1)])
    change(document["results"][0]["tilesmith"])
    return json.dumps(document)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.txt", "", "neither a .json file"),
        ("x.json", "{", "no JSON"),
        ("x.json", "[" * 100_000, "no JSON"),
        ("x.json", "[]", "no T4 document"),
        ("x.json", '{"results": [{"configuration": {}}]}', "result 1: it holds no trial"),
        ("x.json", _t4(lambda record: record.pop("cell")), "cell: Field required"),
        ("x.json", _t4(lambda record: record.update(cell=3)), "cell: Input should be a valid string"),
        ("x.json", _t4(lambda record: record["tiling"].update(a="1")), "tiling.a: Input should be a valid int"),
        ("x.json", _t4(lambda record: record.update(odd=1)), "unknown field 'odd'"),
        ("x.json", _t4(lambda record: record["shape"].update(odd=1)), "unknown field 'shape.odd'"),
        ("x.json", _t4(lambda record: record["shape"].update(batch=0)), "batch must be an integer of at least 1"),
        ("x.json", _t4(lambda record: record["measurement"].update(median_ms=-1.0)), "its times are"),
        ("x.json", _t4(lambda record: record["measurement"].update(median_ms=1e9)), "lies outside"),
        ("x.json", _t4(lambda record: record.update(measurement=None)), "has no measurement"),
        ("x.json", _t4(lambda record: record.update(validation=None)), "nothing says how it was validated"),
        ("x.json", _t4(lambda record: record.update(model_us_per_step=float("nan"))), "model_us_per_step"),
        ("x.json", _t4(lambda record: record.update(created="yesterday")), "'yesterday', no time"),
        ("x.json", _t4(lambda record: record.update(created="2026-11-27T10:00:00")), "with its zone"),
        ("x.csv", "", "its first row differs"),
        ("x.csv", "a,b\n1,2\n", "its first row differs in a, arch, b"),
        ("x.csv", to_csv([]) + "1,2\n", "line 2: has 2 values, not"),
        ("x.csv", to_csv([trial(1)]).replace("f1,16,", "f1,x,"), "line 2: shape.batch cannot be 'x'"),
        ("x.csv", to_csv([trial(1)]).replace("f1,16,", "f1,1.5,"), "shape.batch: Input should be a valid integer"),
        ("x.csv", to_csv([trial(1)]).replace("0.31,measured", "0.31,great"), "status: Input should be"),
    ],
)
def test_a_file_of_no_trials_is_refused_in_words(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(StoreError, match=re.escape(words)):
        read_trials(path)


def test_a_time_of_another_zone_becomes_utc(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(to_csv([trial(1, created="2026-11-27T12:00:00+02:00")]))
    assert read_trials(path)[0].created == "2026-11-27T10:00:00+00:00"


# ---- merging ----


def _store(path: Path, *trials: Trial) -> Path:
    with Store(path) as store:
        for each in trials:
            store.add(each)
    return path


def test_merged_stores_hold_every_trial_once_in_the_order_of_time(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.sqlite", trial(1), trial(4))
    with Store(path) as store:
        assert store.merge([[trial(2), trial(4), trial(5)], [trial(3), trial(2)]]) == 3
        assert store.trials() == [trial(number) for number in range(1, 6)]
        assert store.merge([[trial(2)], []]) == 0
        assert len(store.trials()) == 5


def test_what_was_learned_last_counts_after_a_merge(tmp_path: Path) -> None:
    """A failure that another machine saw later stands, an earlier one does not."""
    later = trial(9, "failed", source_hash="s1", tiling=trial(1).tiling)
    for first, second in (([trial(1)], [later]), ([later], [trial(1)])):
        with Store(tmp_path / f"{first[0].status}.sqlite") as store:
            store.merge([first, second])
            found = store.find("s1", "h200", SHAPE)
            assert found is not None
            assert found.status == "failed"


def test_a_clock_that_was_set_back_keeps_a_store_in_its_order(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.sqlite", trial(5), trial(1))
    with Store(path) as store:
        store.merge([[trial(3)]])
        assert [each.source_hash for each in store.trials()] == ["s3", "s5", "s1"]


def test_a_merge_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.sqlite", trial(2))
    broken: Any = trial(1, shape=None)
    with Store(path) as store:
        with pytest.raises(AttributeError):
            store.merge([[trial(1)], [broken]])
        assert store.trials() == [trial(2)]
        store.add(trial(3))


# ---- what stands ----


def test_a_kernel_counts_with_its_last_verdict() -> None:
    kernel = {"source_hash": "s1", "tiling": trial(1).tiling}
    first, again = trial(1, ms=0.1), trial(2, ms=0.5, **kernel)
    assert standing([first, again, trial(3, "compiled", measurement=None, **kernel)]) == [again]
    other = trial(4, "failed", schedule="resident_backward")
    one, two = summaries([other, first, trial(5, ms=0.3)])
    assert (one.direction, one.best) == ("backward", None)
    assert two.best == first
    assert two.statuses == {"measured": 2}
