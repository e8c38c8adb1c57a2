# `make demo` and `make test` do all the set-up they need on a fresh machine, into .venv.
.DELETE_ON_ERROR:
.PHONY: sbom demo install test coverage test-slow test-crash pictures lint clean

PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo-out
# Processes that share the tests, file by file: one more than the cores of a small machine, since tests also wait.
WORKERS ?= 3
SHARED = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# Real images for tests, where a checkout has them beside it; the tests that want them skip elsewhere.
export PERFUSION_TEST_DATA ?= $(wildcard $(CURDIR)/../shared/data)
# Threads that wait must not spin: the machine is shared.
export OMP_WAIT_POLICY ?= PASSIVE
# Sample programs that come with pynetdicom under the names of DCMTK's tools, which they would hide.
SHADOWS := echoscp echoscu findscu getscu movescu qrscp storescp storescu

demo: .venv/.node
	$(BIN)/dicomnode demo --out $(OUT)

# As root: services, settings and a place of their own. make install PEERS='--source CT1@192.0.2.10'
install:
	scripts/install.sh $(PEERS)

# Several processes compute at once: threads of one would only wait for one another.
test coverage: export OMP_NUM_THREADS ?= 1

test: .venv/.dev lint
	$(BIN)/python -m pytest $(SHARED) $(PYTEST_OPTIONS)

# The same, measured.
coverage: .venv/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SHARED) $(PYTEST_OPTIONS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='dicomnode/*,inference/*' --fail-under=85

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow --timeout=3600 $(PYTEST_OPTIONS)

# Five hundred kills under load; docs/reliability.md says what is counted.
test-crash: .venv/.dev
	$(BIN)/python -m tests.crash $(CRASH_OPTIONS)

# The pictures of the pages in docs, taken by tests in a browser, some of them slow.
pictures: .venv/.dev
	PERFUSION_PICTURES=docs/pictures $(BIN)/python -m pytest -m '' --timeout=1200 tests/walks/test_pictures.py tests/dicomnode/web/test_pilo_browser.py

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.venv/.python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	touch $@

# torch first and alone: its version is exact, and a looser request would bring gigabytes of CUDA.
.venv/.node: .venv/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable .
	rm -f $(SHADOWS:%=$(BIN)/%)
	touch $@

.venv/.dev: .venv/.node
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[training,postgresql,redis,oidc,dev]'
	rm -f $(SHADOWS:%=$(BIN)/%)
	touch $@

# What is installed, as a CycloneDX bill of materials; SECURITY.md says how to compare it with what is known.
sbom: .venv/.node
	$(BIN)/python scripts/sbom.py > sbom.json

clean:
	rm -rf .venv $(OUT) .coverage* .mypy_cache .pytest_cache .ruff_cache
