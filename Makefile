# Everything happens in .venv; the first target that needs it makes it.

.DEFAULT_GOAL := help
.PHONY: help run test check cover bench clean

PY := .venv/bin/python
# The first Python that is new enough. Looked for only when .venv has to be made or renewed.
FIND_PYTHON := for p in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; p=; done; \
	test -n "$$p" || { echo 'Python 3.11 or newer is needed: apt-get install python3' >&2; exit 1; };

help:  ## This list.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: .venv/.run  ## A demo: a backend, the gateway in front of it, two accounts, and curl lines to paste.
	@exec $(PY) examples/demo.py

test: .venv/.dev  ## The whole test suite.
	@$(PY) -m pytest -n auto --maxprocesses 4

check: .venv/.dev  ## Style, types, and the walls between the rooms.
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

cover: .venv/.dev  ## The test suite, and the lines and branches that it does not reach.
	@$(PY) -m pytest -n auto --maxprocesses 4 --cov --cov-report=term-missing:skip-covered

bench: .venv/.dev  ## How fast it is, beside the programs found on this machine. Three minutes.
	@$(PY) -m benchmarks

clean:  ## Remove .venv and every cache. Your gateway.yaml, .env and database stay.
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: pyproject.toml .ci/setup_venv.py
	@$(FIND_PYTHON) $$p .ci/setup_venv.py
	@touch $@

.venv/.dev: pyproject.toml .ci/setup_venv.py
	@$(FIND_PYTHON) $$p .ci/setup_venv.py dev
	@touch .venv/.run $@
