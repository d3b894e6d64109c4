# make tune   a tuned, validated LSTM kernel for an H200 in build/, no GPU needed
# make test   every test that runs without a GPU
# make docs   the documentation as HTML, in build/docs
# All set everything up themselves: a virtual environment in .venv and an editable install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard constrint/_core/*)

.PHONY: tune test lint docs clean

tune: $(VENV)/installed
	$(BIN)/tilesmith tune lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 --dtype bfloat16 -o build/lstm.yaml

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf build dist *.egg-info
