"""The command line: ``tilesmith``. One module of this package for each command, imported when it is called.

Here is only what must hold from the first moment on: Ctrl-C, closed or full output streams, and an encoding that lacks
some letters all end in a message or a status, never in a traceback. Little is imported here, since Ctrl-C is in the
interpreter's hands until ``entry`` runs. ``main`` is the group of all commands.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

STARTED = time.monotonic()
"""When the command began, near enough: what `tune` counts its time to the first kernel from."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

REFUSED = 2
"""Exit status where something cannot be done."""

_quick_end = False


def __getattr__(name: str) -> Any:
    """Import the group of commands, with the library that parses options, when it is first asked for."""
    if name != "main":
        raise AttributeError(f"module 'kernelgen.commands' has no attribute {name!r}")
    from kernelgen.commands.group import main

    return main


def entry() -> NoReturn:
    """Run ``tilesmith`` as a process of its own, and end it."""
    global _quick_end
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until a command runs, and after it, there is nothing to save: Ctrl-C just ends the process.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _quick_end = True
    _open_streams()
    from kernelgen.commands.group import main

    status: Any
    try:
        main(prog_name="tilesmith")
        status = 0
    except SystemExit as ended:
        status = ended.code
    except OSError as error:  # of the help, or of an error's message
        _tell(error)
        status = REFUSED
    sys.exit(_flush(REFUSED if isinstance(status, str) else status))


class Interruptible:
    """Lets Ctrl-C raise KeyboardInterrupt inside a ``with`` block, where somebody catches it."""

    def __enter__(self) -> None:
        self._switch("default_int_handler")

    def __exit__(self, *_: object) -> None:
        self._switch("SIG_DFL")

    def _switch(self, handler: str) -> None:
        if _quick_end:
            import signal

            signal.signal(signal.SIGINT, getattr(signal, handler))


def _open_streams() -> None:
    """Make sure that files 0 to 2 are open, so that no other file takes their numbers, and can take any letter.

    Writing to a stdout that was closed then fails as it should; what goes to a closed stderr is lost.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _written_whole(sys.stdout)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _written_whole(stream: Any) -> Any:
    """A text stream that writes all it is given or raises.

    Where Python is told not to buffer (PYTHONUNBUFFERED), text goes to the file itself, which may take a part only:
    what a full disk does not hold would be lost without a word.
    """
    import io

    if not isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        return stream
    text = open(stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False)  # noqa: SIM115
    text.reconfigure(line_buffering=True)
    return text


def _flush(status: Any) -> Any:
    """Write out what waits in the streams; the status to end with."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop(1)
        if not isinstance(error, BrokenPipeError) and status in (0, None):
            _tell(error)
            status = REFUSED
    try:
        sys.stderr.flush()
    except OSError:
        _drop(2)
        status = status or REFUSED
    return status


def _tell(error: OSError) -> None:
    """Say that the output cannot be written, unless stderr is what cannot."""
    import contextlib

    with contextlib.suppress(OSError):
        print(f"Error: cannot write the output: {error.strerror}", file=sys.stderr, flush=True)


def _drop(number: int) -> None:
    """Lose what a stream still holds, which the interpreter would try to write once more at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
