"""Run tilesmith from a checkout: ``python cli.py ...`` is the ``tilesmith`` command."""

from kernelgen.commands import entry

if __name__ == "__main__":
    entry()
