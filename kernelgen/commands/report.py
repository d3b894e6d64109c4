"""tilesmith report: tuning as one page of charts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import remark, working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernelgen.tuning.report import Report

MOST_PROBLEMS = 40
"""On one page; more are slow to draw."""


@click.command()
@click.argument("what", metavar="[FILE.yaml|STORE]", required=False, type=click.Path(path_type=Path))
@click.option("--cell", metavar="NAME", help="Of a store: only trials of this cell.")
@click.option("--gpu", metavar="NAME", help="Of a store: only trials on this GPU.")
@click.option(
    "--output",
    "-o",
    metavar="FILE.html",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where to write.",
)
@click.option(
    "--charts",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="And write each chart there as a picture, NUMBER-CHART.svg.",
)
def command(what: Path | None, cell: str | None, gpu: str | None, output: Path, charts: Path | None) -> None:
    """Write a report on tuning: one HTML page, which needs no network.

    Of each problem: trials over time and the best so far, the model against measurement, the tilings, registers and
    shared memory predicted and reported, the winner against its floor, and what was rejected and why. Of FILE.yaml it
    is about its problem, with the trials that your store has of it; else about every problem of a store, yours if none
    is named. It needs the package vl-convert-python, which has the charts' library.

    \b
    Examples:
      tilesmith report lstm.yaml -o lstm.html
      tilesmith report --gpu h200 --cell lstm -o lstm.html
      tilesmith report lstm.yaml -o lstm.html --charts pictures
    """
    from kernelgen.build.cache import write_together
    from kernelgen.errors import ConfigError
    from kernelgen.tuning.report_page import page, vega_script

    if output.suffix not in (".html", ".htm"):
        raise ConfigError(f"a report is an .html file; {output} is not named so")
    with working("drawing"):
        if what is not None and what.suffix in (".yaml", ".yml"):
            if cell or gpu:
                raise ConfigError("--cell and --gpu choose among the problems of a store; a configuration is of one")
            title, reports = _of_config(what)
        else:
            title, reports = _of_store(what, cell, gpu)
        text = page(title, reports, vega_script())
        files = [(output, text.encode())]
        if charts is not None:
            files += [(charts / name, picture.encode()) for name, picture in _pictures(reports)]
    try:
        for folder in {path.parent for path, _ in files}:
            folder.mkdir(parents=True, exist_ok=True)
        write_together(files)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error
    problems = f"{len(reports)} problem{'s' if len(reports) > 1 else ''}"
    click.echo(f"wrote {output}: {problems}, {len(text.encode()) / 2**20:.1f} MiB")
    if charts is not None:
        click.echo(f"wrote {len(files) - 1} pictures into {charts}")


def _pictures(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """Every chart's file name, and the picture."""
    from kernelgen.tuning.report_charts import charts
    from kernelgen.tuning.report_page import chart_picture

    return [
        (f"{number}-{chart.name}.svg", chart_picture(chart))
        for number, report in enumerate(reports, 1)
        for chart in charts(report)
    ]


def _of_config(path: Path) -> tuple[str, list[Report]]:
    from kernelgen.paths import cache_root
    from kernelgen.records.config_reading import load_config
    from kernelgen.records.store import Store
    from kernelgen.records.summary import summaries
    from kernelgen.tuning.report import report, trials_of_config

    config = load_config(path)
    with Store(cache_root() / "trials.sqlite", write=False) as store:
        known = store.trials(cell=config.cell.name, gpu=config.gpu)
    chosen, trials = trials_of_config(config, known)
    if len(trials) == 1:
        remark("your store has no other trials of this problem, so the report shows this kernel alone")
    return f"tilesmith: {path.name}", [report(problem, chosen) for problem in summaries(trials)]


def _of_store(path: Path | None, cell: str | None, gpu: str | None) -> tuple[str, list[Report]]:
    from kernelgen.commands.store import stored_trials
    from kernelgen.errors import StoreError
    from kernelgen.records.summary import summaries
    from kernelgen.tuning.report import report

    problems = summaries(stored_trials(path, cell, gpu))
    if not problems:
        raise StoreError("there are no such trials in the store; `tilesmith store show` lists what it has")
    if len(problems) > MOST_PROBLEMS:
        raise StoreError(
            f"these are {len(problems)} problems, and a page shows {MOST_PROBLEMS} at most; narrow it down with --cell "
            "or --gpu"
        )
    return f"tilesmith: {path.name if path else 'the store of trials'}", [report(problem) for problem in problems]
