# make tune   a tuned, validated LSTM kernel for an H200 in build/, no GPU needed
# make test   every test that runs without a GPU
# Both set everything up themselves: a virtual environment in .venv and an editable install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard constrint/_core/*)

.PHONY: tune test lint clean

tune: $(VENV)/installed
	$(BIN)/tilesmith tune lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 --dtype bfloat16 -o build/lstm.yaml

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf build dist *.egg-info
