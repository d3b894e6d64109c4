"""The report: what its charts show, that nothing in a trial breaks the page, and that a browser draws it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import fine, refused
from trials import trial

from kernelgen.cells import load_cell
from kernelgen.records.config_reading import load_config
from kernelgen.records.store import Store
from kernelgen.records.summary import Summary, summaries
from kernelgen.records.trial import Trial
from kernelgen.tuning.report import report, trials_of_config
from kernelgen.tuning.report_charts import charts
from kernelgen.tuning.report_page import page

pytestmark = pytest.mark.unit

FINGERPRINT = load_cell("lstm").fingerprint
CHARTS = ["trials", "model", "tilings", "registers", "shared_memory", "winner"]


def _trials() -> list[Trial]:
    """Five kernels, of which two are measured, tried one after another."""
    rejected = trial(3, "rejected", reason="spills 8 bytes (stores) and 16 bytes (loads) of registers per thread")
    made = [
        trial(1, ms=0.5),
        rejected,
        trial(4, "rejected", reason=rejected.reason.replace("16", "24")),
        trial(5, "failed", reason="on the GPU: took longer than its limit of 30 s and was stopped"),
        trial(6, ms=0.25, schedule="cluster"),
    ]
    return [replace(each, fingerprint=FINGERPRINT) for each in made]


def _problem(trials: list[Trial]) -> Summary:
    (problem,) = summaries(trials)
    return problem


def test_a_report_shows_the_best_so_far_and_the_winner_against_its_floor() -> None:
    found = report(_problem(_trials()))
    assert [row["best"] for row in found.kernels] == [0.5, 0.5, 0.5, 0.5, 0.25]
    assert [row["second"] for row in found.kernels] == [0, 2, 3, 4, 5]
    assert [row["winner"] for row in found.kernels] == [False] * 4 + [True]
    floor, model, measured = found.winner
    assert floor["ms"] < 0.25
    assert model["ms"] == pytest.approx(0.31 * 1.024)
    assert measured["ms"] == 0.25
    assert measured["times"] == pytest.approx(0.25 / floor["ms"])
    assert [chart.name for chart in charts(found)] == CHARTS


def test_variables_stand_evenly_by_their_values() -> None:
    found = report(_problem(_trials()))
    places = {(row["number"], row["variable"]): (row["value"], row["position"]) for row in found.tilings}
    assert places[1, "batch_tile"] == ("8", 0)
    assert places[5, "batch_tile"] == ("48", 1)
    assert places[5, "schedule"] == ("cluster", 0)
    assert not [row for row in found.tilings if row["variable"] == "units_per_warp"]  # 8 everywhere


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    (status, words, count, tiling), (failed, hung, one, _) = report(_problem(_trials())).reasons
    assert (status, count) == ("rejected", 2)
    assert "spills # bytes" in words
    assert "one: spills 8 bytes" in words
    assert tiling == "resident(units_per_warp=8, batch_tile=24)"
    assert (failed, one) == ("failed", 1)
    assert hung.startswith("it hung")


def test_where_nothing_was_measured_the_model_stands_in() -> None:
    trials = [trial(1, "valid", model_us_per_step=0.2), trial(2, "compiled"), trial(3, "rejected", gpu="h200")]
    found = report(_problem(trials))
    assert not found.measured
    assert [row["ms"] for row in found.kernels] == pytest.approx([0.2 * 1.024, 0.31 * 1.024, None])
    assert [row["what"] for row in found.winner] == ["model"]  # the cell is not the library's: no floor
    assert [chart.name for chart in charts(found)] == [name for name in CHARTS if name != "model"]


def test_nothing_in_a_trial_ends_the_script_or_becomes_markup() -> None:
    nasty = "</script><script>alert(1)</script><b>&\u2028"
    text = page(nasty, [report(_problem([trial(1, "failed", reason=nasty), trial(2, gpu="h200")]))], "")
    assert text.count("<script>") == text.count("</script>") == 2
    assert "<b>" not in text
    found = re.search(r"const CHARTS = (.*);$", text, re.MULTILINE)
    assert found is not None
    assert json.loads(found[1])[0][1]["data"]["values"][0]["reason"] == nasty


def test_a_configuration_is_its_own_trial_where_the_store_knows_none(tuned: Path) -> None:
    chosen, trials = trials_of_config(load_config(tuned), [trial(1)])
    assert trials == [chosen]
    assert chosen.status == "valid"
    again, more = trials_of_config(load_config(tuned), [chosen, replace(chosen, status="compiled", source_hash="x")])
    assert (again, len(more)) == (chosen, 2)


def test_what_cannot_be_reported_is_said(tmp_path: Path, fresh_cache: Path, tuned: Path) -> None:
    assert "there is no store" in refused("report")
    assert "an .html file" in refused("report -o x.txt")
    assert "choose among the problems" in refused("report --cell lstm", tuned)
    with Store(fresh_cache / "trials.sqlite") as store:
        for number in range(1, 43):
            store.add(trial(1, fingerprint=f"f{number}"))
    assert "42 problems" in refused("report")
    assert "no such trials" in refused("report --cell gru")


def test_without_the_charts_library_a_report_says_what_to_install(
    tuned: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert "vl-convert-python" in refused("report", tuned, "-o", fresh_cache / "x.html")
    assert not (fresh_cache / "x.html").exists()


def test_several_problems_begin_with_an_overview() -> None:
    found = [report(_problem(_trials())), report(_problem([trial(1, "valid", cell="gru")]))]
    text = page("two", found, "")
    overview = text[text.index("<h1>") : text.index("<section")]
    rows = re.findall(r"<tr>(.*?)</tr>", overview)[1:]
    assert [re.findall(r'href="#problem-(\d)"', row) for row in rows] == [["0"], ["1"]]
    assert "5: 1 failed, 2 measured, 2 rejected" in rows[0]
    assert f'<td class="number">0.2500 ms</td><td class="number">{found[0].winner[-1]["times"]:.2f}</td>' in rows[0]
    assert rows[1].endswith('<td class="number"></td><td class="number"></td>')
    assert "<tr><th>problem</th>" not in page("one", found[:1], "")


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to draw the page (apt-get install chromium)")
def test_a_browser_draws_every_chart_without_a_network(tmp_path: Path, session_cache: Path) -> None:
    pytest.importorskip("vl_convert")
    with Store(tmp_path / "trials.sqlite") as store:
        for each in [*_trials(), trial(1, "valid", cell="gru")]:
            store.add(each)
    path = tmp_path / "out" / "report.html"
    told = fine("report", tmp_path / "trials.sqlite", "-o", path, "--charts", tmp_path / "charts")
    assert "2 problems" in told
    pictures = [file.read_text() for file in (tmp_path / "charts").glob("*.svg")]
    assert len(pictures) == len(CHARTS) + 4
    assert f"wrote {len(pictures)} pictures" in told
    assert all(picture.startswith("<svg") and "NaN" not in picture for picture in pictures)
    assert path.stat().st_size < 2 << 20
    assert BROWSER is not None
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=30000"]
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run(
        [*command, *offline, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    state = re.search(r'<body data-state="([^"]*)"', done.stdout)
    assert state is not None, done.stderr
    assert state[1] == f"drawn {len(CHARTS) + 4}"  # of gru: no measurement, and one tiling has no parallels
    assert done.stdout.count("<svg") >= len(CHARTS) + 4
    assert "NaN" not in "".join(re.findall(r'd="M[^"]*"', done.stdout))
