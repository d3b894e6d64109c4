# Every target sets up what it needs: an editable install in .venv, and for all but `make tune` what the tests need too,
# PyTorch among it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST_NVRTC := $(shell sed -n 's/.*"nvidia-cuda-nvrtc>=\([0-9.]*\)".*/\1/p' pyproject.toml)
SOURCES := pyproject.toml setup.py $(wildcard constrint/_core/* kernelgen/device/_launcher/*)

.PHONY: help tune test fuzz lint docs bench wheels clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

tune: $(VENV)/installed ## a tuned, validated LSTM kernel for an H200 in build/, no GPU needed
	$(BIN)/tilesmith tune lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 --dtype bfloat16 -o build/lstm.yaml

test: $(VENV)/tests $(VENV)/nvrtc-$(OLDEST_NVRTC) ## every test that runs without a GPU
	$(BIN)/python -m pytest -n 2 --dist loadgroup

fuzz: $(VENV)/tests ## 2,000 calls of the command line with bad input, 40,000 random problems over values; some minutes
	$(BIN)/python -m pytest -m fuzz

lint: $(VENV)/tests ## ruff and mypy --strict
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/docs ## the documentation as HTML, in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/tests ## the solver measured on the CPU; SPACES=FOLDER: on tuning spaces too, beside other solvers
	$(BIN)/python benchmarks/lexicographic.py
	$(BIN)/python benchmarks/classes.py
	$(if $(SPACES),$(BIN)/python -m pip install --quiet --editable ".[bench]")
	$(if $(SPACES),$(BIN)/python benchmarks/solver.py --spaces "$(SPACES)")

wheels: $(VENV)/tests ## an sdist, and wheels for Python 3.11 to 3.14, in dist/; needs docker or podman
	rm -rf dist
	$(BIN)/python -m pip install --quiet "cibuildwheel>=3.2"
	$(BIN)/python -m build --sdist
	$(BIN)/cibuildwheel --platform linux --output-dir dist dist/*.tar.gz

clean: ## remove what was built, but not .venv
	rm -rf build dist *.egg-info .pytest_cache

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/nvrtc-$(OLDEST_NVRTC): | $(VENV)/tests
	$(BIN)/python -m pip install --quiet --no-deps --target $@ nvidia-cuda-nvrtc==$(OLDEST_NVRTC)

$(VENV)/installed: $(SOURCES)
	$(call install,.)

$(VENV)/tests: $(SOURCES)
	$(call install,.[test])
	touch $@

define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable "$(1)"
	$(BIN)/python -m compileall -q constrint kernelgen
	$(BIN)/tilesmith --version
	touch $(VENV)/installed
endef
