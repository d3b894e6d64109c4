"""The charts of a report, as Vega-Lite: each a title, a sentence, and a specification that holds its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernelgen.tuning.report import Report, Row

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

COLOURS = {
    "measured": "#1f77b4",
    "valid": "#2ca02c",
    "compiled": "#8c8c8c",
    "rejected": "#ff7f0e",
    "failed": "#d62728",
}
"""Of a trial's status."""

_TOOLTIP = [
    {"field": "tiling", "type": "nominal"},
    {"field": "status", "type": "nominal"},
    {"field": "measured_ms", "type": "quantitative", "format": ".4f", "title": "measured ms"},
    {"field": "model_ms", "type": "quantitative", "format": ".4f", "title": "model ms"},
    {"field": "registers", "type": "quantitative"},
    {"field": "spills", "type": "quantitative"},
    {"field": "reason", "type": "nominal"},
]


@dataclass(frozen=True)
class Chart:
    """name: for the page's own use. spec: Vega-Lite, its data inside."""

    name: str
    title: str
    text: str
    spec: dict[str, Any]


def charts(report: Report) -> list[Chart]:
    """The charts that a problem has data for."""
    source = "measured" if report.measured else "model's"
    found = []
    timed = [row for row in report.kernels if row["ms"] is not None]
    if timed:
        found.append(
            Chart(
                "trials",
                "Trials over time",
                f"Each kernel's {source} time, in the order of trying; the line is the best so far.",
                _trials(report.kernels, f"{source} ms"),
            )
        )
    if any(row["measured_ms"] for row in report.kernels):
        both = [row for row in report.kernels if row["measured_ms"]]
        found.append(
            Chart(
                "model",
                "Model against measurement",
                "On the line they agree; above it, the kernel was slower than the model said.",
                _against(both, "model_ms", "measured_ms", "model ms", "measured ms", log=True),
            )
        )
    if report.tilings:
        found.append(
            Chart(
                "tilings",
                "Tilings",
                "A line for each kernel through the values of its tile variables; darker is faster, red is the winner. "
                "Variables with one value everywhere are left out.",
                _parallel(report.tilings, f"{source} ms"),
            )
        )
    compiled = [row for row in report.kernels if row["registers"] is not None]
    if compiled:
        for name, title, unit in (
            ("registers", "Registers of a thread", "registers"),
            ("shared_memory", "Shared memory of a block", "bytes"),
        ):
            found.append(
                Chart(
                    name,
                    title,
                    "What the compiler reported against what was predicted.",
                    _against(compiled, f"predicted_{name}", name, f"predicted {unit}", f"reported {unit}"),
                )
            )
    if report.winner:
        found.append(
            Chart(
                "winner",
                "The winner and its floor",
                "What no kernel of these designs gets below on this GPU, the model's time, and the measured one. "
                "Backward, floor and model are of the recurrence alone, the measurement is of the whole pass.",
                _bars(report.winner),
            )
        )
    return found


def _base(values: Sequence[Row], width: int = 560, height: int = 260) -> dict[str, Any]:
    return {"$schema": SCHEMA, "width": width, "height": height, "data": {"values": list(values)}}


def _trials(rows: Sequence[Row], unit: str) -> dict[str, Any]:
    x = {"field": "number", "type": "quantitative", "title": "kernels tried", "axis": {"tickMinStep": 1}}
    colour = {
        "field": "status",
        "type": "nominal",
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
        "title": None,
    }
    y = {"field": "ms", "type": "quantitative", "title": unit, "scale": {"type": "log", "nice": False, "padding": 12}}
    return _base(rows) | {
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.best)"}],
                "mark": {"type": "line", "interpolate": "step-after", "color": "#444"},
                "encoding": {"x": x, "y": {**y, "field": "best"}},
            },
            {
                "transform": [{"filter": "isValid(datum.ms)"}],
                "mark": {"type": "point", "filled": True, "size": 50},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": colour,
                    "tooltip": [*_TOOLTIP, {"field": "second", "type": "quantitative"}],
                },
            },
            {
                "transform": [{"filter": "!isValid(datum.ms)"}],
                "mark": {"type": "tick", "thickness": 3, "height": 12, "yOffset": -6},
                "encoding": {"x": x, "y": {"value": 260}, "color": colour, "tooltip": _TOOLTIP},
            },
        ]
    }


def _against(rows: Sequence[Row], x: str, y: str, x_title: str, y_title: str, *, log: bool = False) -> dict[str, Any]:
    """Two numbers of each kernel, and the line on which they are equal."""
    numbers = [row[name] for row in rows for name in (x, y)]
    low, high = min(numbers), max(numbers)
    line = [{"at": low}, {"at": high}]
    scale = {"type": "log", "nice": False, "padding": 8} if log else {"zero": False, "nice": True}
    encoding = {
        "x": {"field": x, "type": "quantitative", "title": x_title, "scale": scale},
        "y": {"field": y, "type": "quantitative", "title": y_title, "scale": scale},
        "color": {"field": "schedule", "type": "nominal", "title": None},
        "shape": {"field": "winner", "type": "nominal", "title": "winner", "legend": None},
        "tooltip": _TOOLTIP,
    }
    return _base(rows, width=320) | {
        "layer": [
            {
                "data": {"values": line},
                "mark": {"type": "line", "strokeDash": [4, 4], "color": "#999"},
                "encoding": {
                    "x": {"field": "at", "type": "quantitative"},
                    "y": {"field": "at", "type": "quantitative"},
                },
            },
            {"mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.7}, "encoding": encoding},
        ]
    }


def _parallel(rows: Sequence[Row], unit: str) -> dict[str, Any]:
    """A line for each kernel, an axis for each variable; numbers beside the axes are the variable's values."""
    variables = list(dict.fromkeys(row["variable"] for row in rows))
    x = {
        "field": "variable",
        "type": "nominal",
        "sort": variables,
        "title": None,
        "axis": {"labelAngle": -20, "grid": True, "domain": False},
    }
    y = {"field": "position", "type": "quantitative", "axis": None, "scale": {"domain": [-0.05, 1.05]}}
    line = {"x": x, "y": y, "detail": {"field": "number", "type": "nominal"}}
    tooltip = [
        {"field": "tiling", "type": "nominal"},
        {"field": "ms", "type": "quantitative", "format": ".4f", "title": unit},
    ]
    ticks = [
        {"variable": variable, "position": position, "value": value}
        for variable, position, value in dict.fromkeys((row["variable"], row["position"], row["value"]) for row in rows)
    ]
    return _base(rows, width=max(480, 90 * len(variables))) | {
        "layer": [
            {
                "mark": {"type": "line", "opacity": 0.45, "strokeWidth": 1.5},
                "encoding": {
                    **line,
                    "color": {
                        "field": "ms",
                        "type": "quantitative",
                        "scale": {"scheme": "viridis", "type": "log"},
                        "legend": {"format": ".3f"},
                        "title": unit,
                    },
                    "tooltip": tooltip,
                },
            },
            {
                "transform": [{"filter": "datum.winner"}],
                "mark": {"type": "line", "strokeWidth": 3, "color": "#d62728"},
                "encoding": {**line, "tooltip": tooltip},
            },
            {
                "data": {"values": ticks},
                "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": 11, "color": "#222"},
                "encoding": {"x": x, "y": y, "text": {"field": "value", "type": "nominal"}},
            },
        ]
    }


def _bars(rows: Sequence[Row]) -> dict[str, Any]:
    encoding = {
        "y": {"field": "what", "type": "nominal", "sort": None, "title": None},
        "x": {"field": "ms", "type": "quantitative", "title": "ms"},
    }
    return _base(rows, width=420, height=40 * len(rows)) | {
        "transform": [
            {
                "calculate": "format(datum.ms, '.4f') + ' ms' + "
                "(isValid(datum.times) ? ' (' + format(datum.times, '.2f') + ' x floor)' : '')",
                "as": "label",
            }
        ],
        "layer": [
            {"mark": {"type": "bar", "color": "#1f77b4", "opacity": 0.8}, "encoding": encoding},
            {
                "mark": {"type": "text", "align": "left", "dx": 4},
                "encoding": {**encoding, "text": {"field": "label", "type": "nominal"}},
            },
        ],
    }
