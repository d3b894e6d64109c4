"""Draw the results of benchmarks/rnn.py as SVG.

    python benchmarks/plot_rnn.py benchmarks/results/2026-11-28-h200.json --out docs/measured

Writes rnn_NAME.svg for the rows of the table and for each sweep over heads, batch and steps that the file has.
matplotlib draws them: pip install ".[plot]".
"""

from __future__ import annotations

from pathlib import Path

import click
from peers.plots import figures
from peers.results import Results


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build"), show_default=True)
def main(file: Path, out: Path) -> None:
    """Read, draw and write."""
    try:
        drawn = figures(Results.read(file))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except ImportError as error:
        raise click.ClickException(f'no plot, for want of matplotlib ({error}); pip install ".[plot]"') from error
    if not drawn:
        raise click.ClickException(f"{file} has no times to draw")
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        path = out / f"rnn_{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        click.echo(path)


if __name__ == "__main__":
    main()
