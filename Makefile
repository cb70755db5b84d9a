# make demo | test | check: each makes .venv first if it is missing or older than the lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := -m pip --disable-pip-version-check --no-input
LOCK_EXTRAS := demo,digits,explore,grib,dev

# Every process would compile the sources again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install packages demo test long fast check lock clean
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vamoh needs Python 3.11 or newer, found '$(PYTHON)': make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --quiet -r requirements.lock
	$(BIN)/python $(PIP) install --quiet --no-deps --no-build-isolation -e .
	touch $@

# What tests of clusters and of pages need of the system; they skip, saying so, where it is missing. Debian, as root.
SYSTEM := slurm-wlm munge iproute2 chromium
packages:
	@missing=$$(for name in $(SYSTEM); do dpkg -s $$name 2>/dev/null | grep -q '^Status: install ok' || echo $$name; done); \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "without root and apt-get, not installed:" $$missing; \
	else apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi

demo: $(STAMP)
	$(BIN)/vamoh demo

# Clusters and browsers have the processors for themselves; the rest is shared by two processes.
ALONE := ray or cluster or browser
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ($(ALONE)) and not long"
	$(BIN)/python -m pytest -m "($(ALONE)) and not long"

# Clusters for minutes: hosts that are cut off, jobs that are cancelled, MLflow's server. After `make packages`, as root.
long: $(STAMP)
	$(BIN)/python -m pytest -m long

fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not ($(ALONE)) and not gpu and not long"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The newest versions that the ranges in pyproject.toml allow, torch apart: a plain torch brings gigabytes of CUDA.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python $(PIP) install --quiet --upgrade setuptools torch==2.13.0
	build/lock/bin/python $(PIP) install --quiet ".[$(LOCK_EXTRAS)]"
	{ echo "# Made by \`make lock\`: all that a fresh install with the extras $(LOCK_EXTRAS) holds, in exact versions."; \
		build/lock/bin/python $(PIP) freeze --all --exclude pip --exclude vamoh | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; \
	} > build/lock/requirements.lock
	mv build/lock/requirements.lock requirements.lock
	rm -rf build/lock

# Runs, models and stores are not touched.
clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
