"""The examples of docs/constrint.md and of the pages beside it run and print what the pages say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.mark.parametrize(("page", "least"), [("constrint.md", 25), ("constrint_formats.md", 6)])
def test_examples_of_the_page(page: str, least: int) -> None:
    results = doctest.testfile(str(DOCS / page), module_relative=False, encoding="utf-8")
    assert results.attempted >= least
    assert results.failed == 0
