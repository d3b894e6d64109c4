"""Put the tables of benchmarks/rnn.py's results into documents.

    python benchmarks/rnn_tables.py benchmarks/results/2026-11-28-h200.json README.md docs/benchmarks.md

A document has a table between <!-- rnn:GROUP --> and <!-- /rnn -->, GROUP being table, modules, cells, grid or batch;
what is between them is replaced. With no document, all tables are printed.
"""

from __future__ import annotations

from pathlib import Path

import click
from peers.markdown import TABLES, filled
from peers.results import Results


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("documents", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(file: Path, documents: tuple[Path, ...]) -> None:
    """Read, and fill in."""
    try:
        results = Results.read(file)
        if not documents:
            groups = [group for group in TABLES if any(group in record.groups for record in results.records)]
            click.echo("\n".join(TABLES[group](results, group) for group in groups))
        for path in documents:
            path.write_text(filled(path.read_text(encoding="utf-8"), results), encoding="utf-8")
            click.echo(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
