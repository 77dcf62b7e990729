# Everything from a fresh clone: Python 3.11 or later, gcc and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
SOURCES := $(shell find pools iocp_adapter analysis cmake -name '*.[ch]' -o -name '*.txt' -o -name '*.cmake' -o -name 'emit_*.py')

.DEFAULT_GOAL := help
.PHONY: help demo test lint test-c test-python test-notebook test-sanitized test-windows test-arm wheels coverage fuzz valgrind bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

$(BIN)/python:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash .ci/make_venv

$(VENV)/.installed-cli: $(BIN)/python pyproject.toml CMakeLists.txt $(SOURCES)
	$(BIN)/python -m pip install -q -e '.[analysis,cli]'
	@touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml CMakeLists.txt $(SOURCES)
	$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@ $(VENV)/.installed-cli

demo: $(VENV)/.installed-cli ## set up and run the demo: real traffic, a trace and a report per strategy
	$(BIN)/poolport demo --leak --force

bench: $(VENV)/.installed-test ## set up and compare all strategies under all workloads
	$(BIN)/python -m pip install -q -e '.[bench]'
	$(BIN)/poolport bench

test: lint test-c test-python test-notebook ## set up and run every check and test

lint: $(VENV)/.installed-test ## formatting, linters, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find pools iocp_adapter analysis examples tests -name '*.[ch]')
	$(BIN)/mypy
	$(BIN)/zizmor --quiet --offline .github/workflows

test-c: $(VENV)/.installed-test ## the C tests under AddressSanitizer and UBSan, and under ThreadSanitizer
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/test_c address,undefined
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/test_c thread

test-sanitized: $(VENV)/.installed-test ## the engine's Python tests under AddressSanitizer and UBSan, and under ThreadSanitizer
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/test_sanitized address,undefined
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/test_sanitized thread

# The run here that the run on Windows is held against.
build/tests.xml: $(VENV)/.installed-test $(shell find tests -name '*.py')
	$(MAKE) test-python

test-windows: build/tests.xml ## everything built for Windows by MinGW and run under Wine: C tests, the wheel, Python tests
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/test_windows

test-arm: $(VENV)/.installed-test ## the C tests built for 64-bit Arm and run under qemu
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/test_arm

wheels: $(VENV)/.installed-test ## what is published, in dist: sdist, wheels for Linux and Windows, each tried out
	VENV="$(VENV)" bash .ci/make_wheels

coverage: $(VENV)/.installed-test ## the C tests under gcov: the coverage of each file, against the bar
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/coverage

fuzz: $(VENV)/.installed-test ## the pools' calls under libFuzzer (needs clang)
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/fuzz

valgrind: $(VENV)/.installed-test ## the C tests under memcheck (needs valgrind)
	VENV="$(VENV)" JOBS=$(JOBS) bash .ci/valgrind

test-notebook: $(VENV)/.installed-test ## run a quick demo and execute the notebook on it
	$(BIN)/python .ci/run_notebooks.py

test-python: $(VENV)/.installed-test ## the Python tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --junitxml=build/tests.xml

clean: ## remove what the build and the demo made
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
