"""``python -m kernelgen.commands`` is the ``tilesmith`` command."""

from kernelgen.commands import entry

if __name__ == "__main__":
    entry()
