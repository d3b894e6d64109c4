"""``python -m kernelgen.commands`` is the ``tilesmith`` command."""

from kernelgen.commands import main

if __name__ == "__main__":
    main(prog_name="tilesmith")
