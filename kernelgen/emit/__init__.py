"""Printers: a cell's expressions as source text, one module per target."""
