# make demo     train on the embedded digits
# make check    lint, types, and the tests that take no training and no browser: one minute
# make test     lint, types, and every test: 8 to 14 minutes
# make zoo      a second environment with timm, torchvision, transformers, and the peers (several GB)
# make test-zoo the tests on those packages' models
# make bench    the benchmarks, which write benchmarks/RESULTS.md
# Each makes its environment first; a second call skips what is done.

PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= auto
# One thread to each worker: processes that each take all cores spend their time waiting for one another.
# Bytecode is written even where the environment forbids it, as many containers do: each worker would compile all tests.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 15
ZOO := .venv-zoo/bin

NODE := tests/browser/node_modules/.package-lock.json
# Only root can, and only where there is apt-get; `update` may fail for a source that has no Chromium anyway.
APT_CHROMIUM := { [ "$$(id -u)" = 0 ] && command -v apt-get && { apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; }; }

.PHONY: demo test check lint types zoo test-zoo bench clean

demo: .venv/installed
	$(BIN)/seewhy demo

test: lint types .venv/browser $(NODE)
	$(PYTEST)

check: lint types
	$(PYTEST) -m "not slow and not train and not browser"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

zoo: .venv-zoo/installed

test-zoo: .venv-zoo/installed
	OMP_NUM_THREADS=2 $(ZOO)/pytest -n0 -m zoo --durations 15 tests/zoo

bench: .venv/installed
	$(BIN)/python -m benchmarks $(CIFAR10)

# torch goes first: a range that another package asks for would otherwise bring the newest build, with gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seewhy needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Builds of torch and torchvision that fit each other; torch's CPU build has no torchvision from the package index.
.venv-zoo/installed: pyproject.toml
	$(PYTHON) -m venv .venv-zoo
	$(ZOO)/pip install --quiet --disable-pip-version-check "torch==2.14.1" "torchvision==0.29.1"
	$(ZOO)/pip install --quiet --disable-pip-version-check -e '.[dev]' timm transformers grad-cam zennit fastai lightning accelerate
	touch $@

# The system's Chromium, else Debian's package, else Playwright's. Where none is to be had, the next call tries again.
.venv/browser: .venv/installed
	@if command -v chromium || test -x /usr/bin/chromium || $(APT_CHROMIUM) || $(BIN)/playwright install chromium; then touch $@; \
	else echo "!!! NO CHROMIUM: THE BROWSER TESTS WILL BE SKIPPED (in CI they fail) !!!" >&2; fi

# TypeScript and axe-core. npm writes the file that stands for them.
$(NODE): tests/browser/package-lock.json
	@cd tests/browser && npm ci --loglevel=error --no-audit --no-fund || \
	echo "!!! NO NPM PACKAGES: THE BROWSER TESTS THAT NEED THEM WILL BE SKIPPED (in CI they fail) !!!" >&2

clean:
	rm -rf tests/browser/node_modules .venv .venv-zoo .mypy_cache .pytest_cache .ruff_cache
