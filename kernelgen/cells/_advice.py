"""What to do about an error of Python's in a user's cell file, where that can be told."""

from __future__ import annotations

import dataclasses
import re
from types import ModuleType

from kernelgen.cells import language
from kernelgen.errors import near_names


def advice(error: BaseException, module: ModuleType) -> str:
    """A few words that begin with "; ", for the end of the error's message; empty where there is nothing to say.

    module: what the file had defined when the error was raised.
    """
    if isinstance(error, NameError) and error.name:
        return _unknown(error.name, {name for name in vars(module) if not name.startswith("_")})
    if isinstance(error, ImportError) and error.name == "kernelgen.cells":
        missing = re.match(r"cannot import name '(\w+)'", str(error))
        return f"; {near_names(missing[1], language.__all__)}" if missing else ""
    keyword = re.match(r"(Cell|Gate)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and keyword:
        takes = getattr(language, keyword[1])
        return f"; {near_names(keyword[2], [field.name for field in dataclasses.fields(takes)])}"
    return ""


def _unknown(name: str, defined: set[str]) -> str:
    """What a name may be meant for that nothing defines."""
    if name in language.__all__:
        return f"; write: from kernelgen.cells import {name}"
    near = near_names(name, defined | set(language.__all__))
    return f"; {near}" if near.startswith("did you mean") else ""
