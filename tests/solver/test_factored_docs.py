"""The examples of docs/constrint.md run and print what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "constrint.md"


def test_examples_of_the_page() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert results.attempted > 25
    assert results.failed == 0
