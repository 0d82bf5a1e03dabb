# make demo    creates .venv, installs, starts the demo, and says where to look
# make test    creates .venv, installs, runs the whole suite (arguments: ARGS="-k store -n 0 -x")
# make check   style, types and the floors between modules
# make outages every outage, also those that have to last (arguments: ARGS="-k half_open")
# make chaos   minutes of faults on real processes, then the laws (arguments: ARGS="--seed 7")
# make features  writes docs/features.rst anew, from the names of the tests
# make bench   measure enqueueing, draining and latency (arguments: ARGS="mariadb --rounds 5")
# make bench-parts      where a job's microseconds go (arguments: ARGS="sqlite mariadb")
# make bench-endurance  millions of jobs, minutes of work (arguments: ARGS="future ended")
# make endurance-page   writes their figures into docs/endurance.rst (arguments: ARGS="out.json")
# make bench-peers  the same beside Celery and others, installed into .bench (arguments:
#                   ARGS="--only ours,pgqueuer --rounds 2"; --docs writes the page)
#
# PYTHON chooses the interpreter of a new .venv (3.10 to 3.13).

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
OUTAGES := $(addprefix tests/processes/test_,store_outages.py half_open.py full_disk.py clocks.py \
	broker_outages.py)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test check outages chaos features bench bench-parts bench-endurance \
	endurance-page bench-peers format clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(VENV)/.installed-demo
	@echo
	@echo "The jet ski rental opens at  http://localhost:6543/"
	@echo "Its jobs are listed at       http://localhost:6543/jobs"
	@echo "Stop it with Ctrl-C. Its data is in demo.sqlite; delete that file to begin anew."
	@echo
	@exec $(BIN)/pserve development.ini

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What `make test` leaves out of these waits for leases and timeouts to run out, or starts a MariaDB
# of its own: a minute more.
outages: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "" $(OUTAGES) $(ARGS)

chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.concurrent $(ARGS)

features:
	@$(PYTHON) docs/feature_table.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

bench-parts: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.parts $(ARGS)

bench-endurance: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.endurance $(or $(ARGS),all)

endurance-page: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.endurance.page $(ARGS)

bench-peers: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.peers $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .bench build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# A stamp for each set of requirements: made anew when these files change, otherwise free.
$(VENV)/.installed-%: setup.py pyproject.toml | $(BIN)/python
	@echo "Installing pyramid_durable[$*] into $(VENV) (a minute the first time) ..."
	@$(PIP) install --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not create $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
