"""The figures of a file of results, each where there are records for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peers.jobs import FLASHRNN, ONE_HEAD, OURS, TORCH_NN
from peers.results import PASSES, Record, Results

LINES = (
    (OURS, "bfloat16", "tilesmith", "tab:blue"),
    (TORCH_NN, "float16", "cuDNN, fp16", "tab:green"),
    (TORCH_NN, "bfloat16", "cuDNN, bf16", "tab:olive"),
    (ONE_HEAD, "float16", "cuDNN, fp16, one head of the same D", "tab:gray"),
    (FLASHRNN, "bfloat16", "FlashRNN", "tab:orange"),
)
"""System, dtype, label and colour."""


def figures(results: Results) -> dict[str, Any]:
    """matplotlib figures by name. Raises ImportError without matplotlib."""
    sweeps: tuple[tuple[str, str, str, Callable[[Record], bool]], ...] = (
        ("heads", "head_dim", "units of a head D (768 in all, B = 16, T = 1024)", _head),
        ("batch_12x64", "batch", "sequences B (12 x 64, T = 1024)", _batch(12, 64)),
        ("batch_1x768", "batch", "sequences B (1 x 768, T = 1024)", _batch(1, 768)),
        ("batch_4x256", "batch", "sequences B (4 x 256, T = 1024)", _batch(4, 256)),
        ("batch_1x512", "batch", "sequences B (1 x 512, T = 1024)", _batch(1, 512)),
        ("steps_12x64", "seq", "steps T (12 x 64, B = 16)", _steps(12, 64)),
        ("steps_1x768", "seq", "steps T (1 x 768, B = 16)", _steps(1, 768)),
    )
    found = {}
    if any(results.find(OURS, "forward", group="table")):
        found["table"] = _bars(results)
    for name, axis, label, belongs in sweeps:
        kept = [r for r in results.records if r.ms is not None and not r.module and r.cell == "lstm" and belongs(r)]
        if len({getattr(record, axis) for record in kept if record.system == OURS}) > 1:
            found[name] = _sweep(results, kept, axis, label)
    return found


def _head(record: Record) -> bool:
    return record.heads * record.head_dim == 768 and (record.batch, record.seq) == (16, 1024)


def _batch(heads: int, dim: int) -> Callable[[Record], bool]:
    return lambda record: (record.heads, record.head_dim, record.seq) == (heads, dim, 1024)


def _steps(heads: int, dim: int) -> Callable[[Record], bool]:
    return lambda record: (record.heads, record.head_dim, record.batch) == (heads, dim, 16)


def _sweep(results: Results, records: Sequence[Record], axis: str, label: str) -> Any:
    """Both passes over one axis, both logarithmic, with the floor."""
    figure, panels = _figure(1)
    for panel, what in zip(panels, PASSES, strict=True):
        for system, dtype, name, colour in LINES:
            of = sorted(
                (r for r in records if (r.system, r.dtype, r.what) == (system, dtype, what)),
                key=lambda record: getattr(record, axis),
            )
            if not of:
                continue
            x = [getattr(record, axis) for record in of]
            panel.plot(x, [record.ms for record in of], "o-", color=colour, label=name, markersize=3)
            panel.fill_between(
                x, [r.p10_ms or 0 for r in of], [r.p90_ms or 0 for r in of], color=colour, alpha=0.2, linewidth=0
            )
            if system == OURS and all(record.floor_ms for record in of):
                panel.plot(x, [record.floor_ms for record in of], ":", color="black", label="floor")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel(label)
        panel.set_title(what)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms")
    panels[1].legend(fontsize="small")
    _caption(figure, results)
    return figure


def _bars(results: Results) -> Any:
    """The rows of the table, a bar for each system, ours with its floor."""
    figure, panels = _figure(2)
    for panel, what in zip(panels, PASSES, strict=True):
        ours = list(results.find(OURS, what, group="table"))
        lines = [line for line in LINES if any(results.find(line[0], what, line[1], "table"))]
        height = 0.8 / max(1, len(lines))
        for place, (system, dtype, name, colour) in enumerate(lines):
            times = {record.row: record.ms for record in results.find(system, what, dtype, "table")}
            at = [(y + place * height, times[r.row]) for y, r in enumerate(ours) if r.row in times]
            panel.barh([y for y, _ in at], [ms for _, ms in at], height, color=colour, label=name)
        floors = [(y, record.floor_ms) for y, record in enumerate(ours) if record.floor_ms]
        panel.plot([ms for _, ms in floors], [y for y, _ in floors], "|", color="black", label="floor")
        panel.set_yticks(
            [y + 0.4 - height / 2 for y in range(len(ours))],
            [f"{record.heads} x {record.head_dim}, B = {record.batch}" for record in ours],
        )
        panel.invert_yaxis()
        panel.set_xscale("log")
        panel.set_xlabel("ms")
        panel.set_title(f"{what}, LSTM, T = {ours[0].seq}" if ours else what)
        panel.grid(axis="x", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize="small", loc="outside upper center", ncols=5)
    _caption(figure, results)
    return figure


def _figure(tall: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4 * tall), layout="constrained")
    return figure, figure.subplots(1, 2, sharey=tall == 1)


def _caption(figure: Any, results: Results) -> None:
    about = results.about
    where = f"{about['gpu']}, driver {about['driver']}, PyTorch {about['torch']}, {about['date']}"
    figure.supxlabel(f"{where}; medians, 10 to 90 % shaded", fontsize="x-small")
