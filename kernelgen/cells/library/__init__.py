"""The library of cells: one short file each that defines ``CELL``."""
