# make demo   train on the embedded digits          make check   lint, types, fast tests (under a minute)
# make test   lint, types and every test            make bench   the benchmarks, which write benchmarks/RESULTS.md
# Each makes .venv first if it is not there; a second call skips what is done.

PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= auto
# One thread to each worker: processes that each take all cores spend their time waiting for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

.PHONY: demo test check lint types bench clean

demo: .venv/installed
	$(BIN)/seewhy demo

test: lint types
	$(PYTEST)

check: lint types
	$(PYTEST) -m "not slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m benchmarks $(CIFAR10)

# torch goes first: a range that another package asks for would otherwise bring the newest build, with gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seewhy needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
