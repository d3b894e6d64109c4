"""Run tilesmith from a checkout: ``python cli.py ...`` is the ``tilesmith`` command."""

from kernelgen.commands import main

if __name__ == "__main__":
    main()
