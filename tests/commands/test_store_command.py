"""tilesmith store: what it shows, and that bad input leaves every store as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import fine, refused
from trials import trial

from kernelgen.records.store import Store
from kernelgen.records.trial import Trial

pytestmark = pytest.mark.unit

GRU = trial(8, ms=0.2, cell="gru", fingerprint="f2")


@pytest.fixture
def store(fresh_cache: Path) -> Path:
    """The user's own, with a few trials."""
    path = fresh_cache / "trials.sqlite"
    with Store(path) as made:
        for each in (trial(1), trial(2, "failed"), trial(3, "compiled", measurement=None), GRU):
            made.add(each)
    return path


def _trials(path: Path) -> list[Trial]:
    with Store(path, write=False) as opened:
        return opened.trials()


def test_show_names_the_best_of_each_problem(store: Path) -> None:
    text = fine("store show")
    assert "0.3000" in text
    assert "units_per_warp=8 batch_tile=64" in text
    found = json.loads(fine("store show --cell lstm --json"))
    assert [each["kernels"] for each in found] == [
        {"measured": 1, "valid": 0, "compiled": 1, "rejected": 0, "failed": 1}
    ]
    assert Trial.from_dict(found[0]["best"]) == trial(1)
    assert json.loads(fine("store show --gpu a100 --json", store)) == []


def test_stores_are_merged_and_files_come_back(store: Path, tmp_path: Path) -> None:
    table, other, again = tmp_path / "out" / "all.csv", tmp_path / "b.sqlite", tmp_path / "c.sqlite"
    fine("store export -o", table)
    assert "4 trials added" in fine("store import -o", other, table)
    assert _trials(other) == _trials(store)
    assert "0 trials added, 4 known already" in fine("store import", table)
    with Store(other) as opened:
        opened.add(trial(9))
    assert "5 trials added, 4 known already" in fine("store merge -o", again, store, other)
    assert [each.source_hash for each in _trials(again)] == ["s1", "s2", "s3", "s8", "s9"]
    fine("store export --cell lstm -o", tmp_path / "lstm.json")
    assert len(json.loads((tmp_path / "lstm.json").read_text())["results"]) == 2
    folder = tmp_path / "t4"
    fine("store export -o", folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{cell}_12x64_b16_t1024_bfloat16_forward_hidden_h200.json" for cell in ("gru", "lstm")
    ]
    assert "0 trials added, 3 known already" in fine("store import", *folder.iterdir())


def test_bad_input_leaves_everything_as_it_was(store: Path, tmp_path: Path) -> None:
    before = _trials(store)
    good, bad, text = tmp_path / "good.csv", tmp_path / "bad.json", tmp_path / "text.sqlite"
    fine("store export -o", good, "--cell", "gru")
    bad.write_text("{}")
    text.write_text("no store at all")
    assert "no T4 document" in refused("store import", good, bad)
    assert "is not an SQLite database" in refused("store merge -o", store, text)
    assert "no store" in refused("store merge -o", store, tmp_path / "missing.sqlite")
    assert "one problem, and these are 2" in refused("store export -o", tmp_path / "all.json")
    assert "no trials of elman, but of gru, lstm" in refused("store export --cell elman -o", tmp_path / "x.csv")
    assert "named as another file" in refused("store export -o", tmp_path / "x.yaml")
    assert "is not an SQLite database" in refused("store import", good, "-o", text)
    assert "cannot write" in refused("store export -o", text / "x.csv")
    assert _trials(store) == before
    assert text.read_text() == "no store at all"
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob("*all.json"))
    assert not (tmp_path / "missing.sqlite").exists()


def test_a_problem_of_which_no_kernel_was_judged_gets_no_file(fresh_cache: Path, tmp_path: Path) -> None:
    with Store(fresh_cache / "trials.sqlite") as made:
        made.add(trial(3, "compiled", measurement=None))
    assert "no kernel was judged" in refused("store export -o", tmp_path / "t4")
    with Store(fresh_cache / "trials.sqlite") as made:
        made.add(GRU)
    assert fine("store export -o", tmp_path / "t4").endswith("hidden_h200.json: 1 result\n")
    assert len(list((tmp_path / "t4").iterdir())) == 1


def test_a_store_that_is_not_there_is_said_so(fresh_cache: Path) -> None:
    assert "`tilesmith tune` makes it" in refused("store show")
