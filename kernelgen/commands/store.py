"""tilesmith store: what the store of trials knows, and how it is shared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import counted, print_json, print_table, remark
from kernelgen.commands.options import Command, json_option
from kernelgen.commands.subcommands import Subcommands

if TYPE_CHECKING:
    from kernelgen.records.summary import Summary
    from kernelgen.records.trial import Trial


@click.group(cls=Subcommands)
def command() -> None:
    """Show, merge, export and import stores of trials.

    The store holds every trial that tuning ever made. STORE is such a file; where it is left out, it is your own,
    trials.sqlite in the cache (docs/config.md). A later `tune`, and PyTorch, take what was measured from there.

    \b
    Examples:
      tilesmith store show --gpu h200
      tilesmith store merge lab1.sqlite lab2.sqlite -o all.sqlite
      tilesmith store export --cell lstm -o results.csv
      tilesmith store import results.csv
    """


def _filters(command: Command) -> Command:
    """Add --cell and --gpu."""
    for option in (
        click.option("--gpu", metavar="NAME", help="Only trials on this GPU, by the name of its profile."),
        click.option("--cell", metavar="NAME", help="Only trials of this cell."),
    ):
        command = option(command)
    return command


@command.command()
@click.argument("store", required=False, type=click.Path(path_type=Path))
@_filters
@json_option
def show(store: Path | None, cell: str | None, gpu: str | None, as_json: bool) -> None:
    """Show the problems that a store knows: how many kernels were tried, and the fastest.

    A kernel counts with its last verdict. The last columns are of the fastest measured kernel.
    """
    from kernelgen.records.summary import summaries

    found = summaries(stored_trials(store, cell, gpu))
    if as_json:
        print_json([_fields(each) for each in found])
        return
    if not found:
        remark(_none(store, cell, gpu))
        return
    rows = []
    for each in found:
        best, counts = each.best, each.statuses
        rows.append(
            (
                each.cell,
                each.direction,
                str(each.shape) + (", recompute" if each.shape.recompute else ""),
                each.shape.save,
                each.gpu,
                *(str(counts.get(status, "")) for status in _STATUSES),
                f"{best.measurement.median_ms:.4f}" if best and best.measurement else "",
                "" if best is None else f"{best.schedule} {' '.join(f'{n}={v}' for n, v in best.tiling.items())}",
                max(trial.created for trial in each.trials).partition("T")[0],
            )
        )
    columns = ("cell", "direction", "size", "save", "gpu", *_STATUSES, "best ms", "tiling", "last")
    print_table(columns, rows, right=(*_STATUSES, "best ms"))


_STATUSES = ("measured", "valid", "compiled", "rejected", "failed")


def _fields(each: Summary) -> dict[str, object]:
    """A problem as JSON: how many kernels stand at each status, and the whole record of the best."""
    import dataclasses

    best = each.best
    return {
        "cell": each.cell,
        "fingerprint": each.fingerprint,
        "direction": each.direction,
        "gpu": each.gpu,
        "shape": dataclasses.asdict(each.shape),
        "trials": len(each.trials),
        "kernels": {status: each.statuses.get(status, 0) for status in _STATUSES},
        "best": None if best is None else best.to_dict(),
    }


@command.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    required=True,
    metavar="STORE",
    type=click.Path(path_type=Path),
    help="Where all trials go; what it holds already stays.",
)
def merge(stores: tuple[Path, ...], output: Path) -> None:
    """Put the trials of several stores into one.

    A trial that is in several is kept once; what was learned last about a kernel counts. Every store is read before
    anything is written, and all trials are written, or none. The output may be one of the stores.
    """
    _put([stored_trials(path, None, None) for path in stores], output)


@command.command()
@click.argument("store", required=False, type=click.Path(path_type=Path))
@_filters
@click.option(
    "--output",
    "-o",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="FILE.csv: every trial. FILE.json: T4, of one problem. Else a folder: a T4 file for each problem.",
)
def export(store: Path | None, cell: str | None, gpu: str | None, output: Path) -> None:
    """Write the trials of a store as T4 (JSON) or CSV.

    T4 is the format in which autotuners exchange results: one for each kernel that was judged, by its last verdict. It
    has no word for kernels that were only compiled; those are left out, and told. `tilesmith store import` reads the
    whole trials again from either.
    """
    import json

    from kernelgen.errors import StoreError
    from kernelgen.records.exchange import NOT_JUDGED, to_csv, to_t4
    from kernelgen.records.summary import summaries

    if output.suffix not in (".csv", ".json") and _names_a_file(output):
        raise StoreError(
            f"trials go into a .csv file, a .json file (T4) or a folder; {output} is named as another file"
        )
    trials = stored_trials(store, cell, gpu)
    if not trials:
        raise StoreError(f"{_none(store, cell, gpu)}; nothing was written")
    if output.suffix == ".csv":
        _write({output: to_csv(trials)})
        click.echo(f"wrote {output}: {counted(len(trials), 'trial')}")
        return
    problems = summaries(trials)
    if output.suffix == ".json" and len(problems) > 1:
        raise StoreError(
            f"a T4 file is of one problem, and these are {len(problems)}: {problems[0].name}, {problems[1].name}, ... "
            "Narrow it down with --cell and --gpu, or name a folder, for a file each, or a .csv file"
        )
    left_out = sum(each.statuses.get(status, 0) for each in problems for status in NOT_JUDGED)
    if left_out:
        remark(f"{left_out:,} kernels were compiled and never judged; T4 has no word for that, so they are left out")
    problems = [each for each in problems if each.statuses.keys() - set(NOT_JUDGED)]
    if not problems:
        raise StoreError("no kernel was judged, so nothing was written; a .csv file takes every trial")
    paths = [output if output.suffix == ".json" else output / f"{each.name}.json" for each in problems]
    documents = [to_t4(each.trials) for each in problems]
    names: dict[Path, str] = {}
    for path, each, document in zip(paths, problems, documents, strict=True):
        unique = path.with_name(f"{path.stem}_{each.fingerprint[:8]}.json") if path in names else path
        names[unique] = json.dumps(document, indent=1) + "\n"
    _write(names)
    for path, document in zip(names, documents, strict=True):
        click.echo(f"wrote {path}: {counted(len(document['results']), 'result')}")


@command.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", metavar="STORE", type=click.Path(path_type=Path), help="Into which store (default: your own)."
)
def import_(files: tuple[Path, ...], output: Path | None) -> None:
    """Add the trials of files that `tilesmith store export` wrote to a store.

    Every trial of every file is checked first; then all that the store does not hold yet are added, or none. What is
    imported counts as measured here, so import only what you trust.
    """
    from kernelgen.records.exchange import read_trials

    _put([read_trials(path) for path in files], _path(output))


def _path(store: Path | None) -> Path:
    """The store's file."""
    from kernelgen.paths import cache_root

    return cache_root() / "trials.sqlite" if store is None else store


def stored_trials(store: Path | None, cell: str | None, gpu: str | None) -> list[Trial]:
    """The trials of a store that is there, oldest first. Raises StoreError."""
    from kernelgen.errors import StoreError
    from kernelgen.records.store import Store

    path = _path(store)
    if not path.exists():
        raise StoreError(f"there is no store {path}" + ("; `tilesmith tune` makes it" if store is None else ""))
    with Store(path, write=False) as opened:
        return opened.trials(cell=cell, gpu=gpu)


def _put(sources: list[list[Trial]], path: Path) -> None:
    """Merge trials into a store, and say how many."""
    from kernelgen.records.store import Store

    with Store(path) as store:
        new = store.merge(sources)
    click.echo(f"{path}: {counted(new, 'trial')} added, {sum(map(len, sources)) - new:,} known already")


def _write(files: dict[Path, str]) -> None:
    """Write text files, each whole or not at all. Raises StoreError."""
    from kernelgen.build.cache import write_together
    from kernelgen.errors import StoreError

    try:
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_together([(path, text.encode()) for path, text in files.items()])
    except OSError as error:
        raise StoreError(f"cannot write {error.filename or next(iter(files))}: {error.strerror or error}") from error


def _names_a_file(path: Path) -> bool:
    """Whether a name that is new ends as that of a file."""
    return path.suffix[1:].isalpha() and not path.exists()


def _none(store: Path | None, cell: str | None, gpu: str | None) -> str:
    """That a store holds nothing of what was asked for, and what it holds."""
    known = stored_trials(store, None, None)
    kinds = (("of", cell, {trial.cell for trial in known}), ("on", gpu, {trial.gpu for trial in known}))
    asked = "".join(f" {word} {name}" for word, name, _ in kinds if name)
    unknown = [f"{word} {', '.join(sorted(names))}" for word, name, names in kinds if name and name not in names]
    return f"{_path(store)} holds no trials{asked}" + (f", but {' '.join(unknown)}" if known and unknown else "")
