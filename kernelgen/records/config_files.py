"""The files of a tuned configuration: whether they may be written, under which names, and whether they are still the
same."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from constrint.documents import TooLarge, read_bounded, read_text
from kernelgen.errors import ConfigError
from kernelgen.program.source import Language
from kernelgen.records.config_text import MOST_BYTES, reason

FORMAT = "tilesmith-config"
"""What the YAML says of itself."""

MOST_BESIDE = 1 << 26
"""Bytes of a source or a binary; larger ones are refused."""

SUFFIXES: Mapping[Language, str] = {"cuda": ".cu", "triton": ".triton.py"}
"""Of the file of a source, which tell its language."""


def check_output(path: Path) -> None:
    """Raise ConfigError if a configuration could not be saved at ``path``; nothing is created.

    For use before a long tuning run: the name, whether the nearest existing folder can be written, and whether what is
    there now is a configuration, which may be replaced.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"a configuration is a .yaml file; {_shown(path)} is not named so")
    try:
        if path.is_dir():
            raise ConfigError(f"cannot write {path}: it is a folder")
        folder = path.absolute().parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise ConfigError(f"cannot write {path}: {folder} is not a folder")
        longest = os.pathconf(folder, "PC_NAME_MAX") - _ADDED_TO_NAMES
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {_shown(path)}: {reason(error)}") from error
    if len(os.fsencode(path.name)) > longest:
        raise ConfigError(f"cannot write {_shown(path)}: a name may have at most {longest} bytes there")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"cannot write {path}: no permission to write in {folder}")
    if path.exists() and owned(path) is None:
        raise ConfigError(
            f"{path} is there and is no tuned configuration, so it is not replaced; move it away, or choose another "
            "name with --output"
        )


_ADDED_TO_NAMES = 64
"""Bytes by which the names of other files are longer: a part of a hash, and those of a temporary."""


def _shown(path: Path) -> str:
    """A path in a message, as far as it fits on a line."""
    text = str(path)
    return text if len(text) <= 120 else f"{text[:57]}...{text[-57:]}"


def owned(path: Path) -> dict[str, str] | None:
    """The sha256 of each file that the configuration at ``path`` has beside it, by name.

    None where there is no configuration. It may be of any version, or damaged beyond the lines that say so.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, ValueError):
        return None
    if not re.search(rf"^format: {FORMAT}$", text, re.MULTILINE):
        return None
    found = re.finditer(r"^ +(source|cubin): (.+)\n +\1_sha256: (.+)$", text, re.MULTILINE)
    return {match[2].strip("'\""): match[3].strip("'\"") for match in found}


def free_name(path: Path, own: dict[str, str] | None, wanted: Path, data: bytes) -> str:
    """A name for a file beside ``path`` that takes nothing from anybody: as wanted, else with some of its sha256.

    own: the files of the configuration that ``path`` replaces, which are free unless another one has them too.
    """
    digest = sha256(data)
    stem, suffix = wanted.stem, wanted.suffix
    names = [f"{stem}{suffix}", f"{stem}-{digest[:12]}{suffix}", f"{stem}-{digest}{suffix}"]
    others = [file for file in (*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")) if file.name != path.name]
    taken = {name for file in others for name in owned(file) or ()}
    for name in names[:2]:
        try:
            there = sha256((path.parent / name).read_bytes())
        except FileNotFoundError:
            if name not in taken:
                return name
            continue
        except OSError:
            continue
        if there == digest or (name not in taken and (own or {}).get(name) == there):
            return name
    return names[2]


def read_beside(path: Path, name: str, digest: str) -> bytes:
    """The contents of a file beside the configuration at ``path``. Raises ConfigError where it cannot be read, or is
    another than that of the digest."""
    file = path.parent / name
    try:
        data = read_bounded(file, MOST_BESIDE)
    except (OSError, TooLarge) as error:
        raise ConfigError(
            f"{path} needs {name} beside it, which cannot be read ({reason(error)}). Copy it there, or tune again."
        ) from error
    if sha256(data) != digest:
        raise ConfigError(f"{file} is not the file that {path.name} was written with (its sha256 differs). Tune again.")
    return data


def sha256(data: bytes) -> str:
    """The digest of a file's contents, as the YAML has it."""
    return hashlib.sha256(data).hexdigest()
