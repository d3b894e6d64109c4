"""The report on tuning as one HTML page that needs nothing else: the charts' library, Vega, is inside it."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kernelgen.errors import ConfigError

if TYPE_CHECKING:
    from kernelgen.tuning.report import Report
    from kernelgen.tuning.report_charts import Chart

INSTALL = "pip install 'tilesmith[report]'"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.2rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { margin-bottom: 0; }
table { border-collapse: collapse; font-size: 13px; }
td, th { text-align: left; padding: 2px 12px 2px 0; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 3rem; }
figure { margin: 0; } figcaption { max-width: 34rem; color: #555; } code { font-size: 12px; }
"""

_NOTICE = (
    "<!-- Vega, Vega-Lite and Vega-Embed: copyright University of Washington Interactive Data Lab, BSD 3-Clause "
    "License, https://github.com/vega -->"
)

_SCRIPT = """
const drawn = [], failed = [];
document.body.dataset.state = "drawing";
Promise.all(CHARTS.map(([id, spec]) =>
  vegaEmbed("#" + id, spec, {renderer: "svg", actions: {export: true, source: false, compiled: false, editor: false}})
    .then(() => drawn.push(id))
    .catch(error => { failed.push(id); document.getElementById(id).textContent = "cannot be drawn: " + error; })
)).then(() => {
  document.body.dataset.state = failed.length ? "failed: " + failed.join(", ") : "drawn " + drawn.length;
});
"""


def page(title: str, reports: Sequence[Report], script: str) -> str:
    """The page. script: the library, as vega_script gives it."""
    from kernelgen.tuning.report_charts import charts

    sections, specs = [], []
    for number, report in enumerate(reports):
        found = charts(report)
        specs += [[f"{chart.name}-{number}", chart.spec] for chart in found]
        sections.append(_section(number, report, found))
    contents = _overview(reports) if len(reports) > 1 else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n{_NOTICE}\n<script>{script}</script>\n</head>\n<body>\n"
        f"<h1>{_text(title)}</h1>\n{contents}\n{''.join(sections)}\n"
        f"<script>const CHARTS = {_json(specs)};{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script. Raises ConfigError where the package that has it is missing.

    To bundle it takes seconds, so the cache keeps it.
    """
    from importlib import metadata

    from kernelgen.build.cache import write_together
    from kernelgen.paths import cache_root, private_folder

    converter = _converter()
    path = cache_root() / "report" / f"vega-{metadata.version('vl-convert-python')}.js"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    script: str = converter.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    try:
        private_folder(path.parent)
        write_together([(path, script.encode())])
    except OSError:
        pass  # bundled anew the next time
    return script


def chart_picture(chart: Chart) -> str:
    """A chart as SVG. Raises ConfigError where the package that draws it is missing."""
    picture: str = _converter().vegalite_to_svg(chart.spec)
    return picture


def _converter() -> Any:
    """The package that has Vega. Raises ConfigError where it is missing."""
    try:
        import vl_convert
    except ImportError as error:
        raise ConfigError(f"a report needs the package vl-convert-python, which has Vega: {INSTALL}") from error
    return vl_convert


def _overview(reports: Sequence[Report]) -> str:
    """The problems in a table: how many kernels were tried, the winner, its time, and how many times its floor."""
    rows = []
    for number, report in enumerate(reports):
        facts = dict(report.facts)
        time = report.winner[-1] if report.winner else {}
        of_floor = f"{time['times']:.2f}" if report.measured and "times" in time else ""
        cells = (facts.get("kernels tried", ""), facts.get("winner", ""), facts.get("measured", "").split(" (")[0])
        rows.append(
            f'<tr><td><a href="#problem-{number}">{_text(report.title)}</a></td><td>{_text(cells[0])}</td>'
            f'<td><code>{_text(cells[1])}</code></td><td class="number">{_text(cells[2])}</td>'
            f'<td class="number">{of_floor}</td></tr>'
        )
    names = ("problem", "kernels tried", "winner", "measured", "x floor")
    heads = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _section(number: int, report: Report, charts: Sequence[Chart]) -> str:
    facts = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in report.facts)
    figures = "".join(
        f"<figure><h3>{_text(chart.title)}</h3><figcaption>{_text(chart.text)}</figcaption>"
        f'<div id="{chart.name}-{number}"></div></figure>'
        for chart in charts
    )
    return (
        f'<section id="problem-{number}">\n<h2>{_text(report.title)}</h2>\n<table>{facts}</table>\n'
        f'<div class="charts">{figures}</div>\n{_refused(report)}</section>\n'
    )


def _refused(report: Report) -> str:
    """The table of what was rejected or failed, and why."""
    if not report.reasons:
        return "<h3>Rejected and failed</h3>\n<p>Nothing.</p>\n"
    rows = "".join(
        f'<tr><td>{_text(status)}</td><td class="number">{count:,}</td><td>{_text(reason)}</td>'
        f"<td><code>{_text(tiling)}</code></td></tr>"
        for status, reason, count, tiling in report.reasons
    )
    return (
        "<h3>Rejected and failed</h3>\n<table><tr><th>status</th><th>kernels</th><th>why</th><th>such as</th></tr>"
        f"{rows}</table>\n"
    )


def _text(value: str) -> str:
    return html.escape(value)


def _json(value: object) -> str:
    """JSON that may stand in a script: no text of it ends the script."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
