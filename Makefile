SHELL := bash
PY    ?= python3
BIN   := .venv/bin
READY := .venv/.ready
JOBS  ?= 2
RUNS  ?= runs
LINTED := nbs tests tools benchmarks examples docs
LINKS := $(or $(PIP_FIND_LINKS),$(shell $(PY) -m pip config get global.find-links 2>/dev/null))
WHERE := $(if $(LINKS),$(addprefix --find-links=,$(LINKS)),--torch-backend=cpu)
export OMP_NUM_THREADS := 1
unexport PYTHONDONTWRITEBYTECODE  # a notebook starts its own Python: without bytecode each compiles torch and pandas again

.PHONY: help results publish leaks study studies report bench faults test lint format sync render docs release lock clean
help:           ## what can be made
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:.*## / — /'
results: $(READY)  ## rerun the tables and compare them with the committed ones (QUICK=1: a small part)
	$(BIN)/ramer sweep $(if $(QUICK),quick,default) --workers $(JOBS) --runs $(RUNS)
publish: $(READY)  ## rerun the full grid and replace what results/ and the README hold (ARGS="--method ae --method mmin": only add or replace these; ARGS=--tune: let every method try its values first)
	$(BIN)/ramer sweep publish --workers $(JOBS) --runs $(RUNS) --publish $(ARGS)
leaks: $(READY)    ## measure what each leak is worth, into $(RUNS)/results/leaks (ARGS="--dataset mosi": only there; ARGS=--publish: into results/)
	$(BIN)/ramer sweep leaks --workers $(JOBS) --runs $(RUNS) $(ARGS)
study: $(READY)    ## rerun one study: make study NAME=top-k (ARGS="--dataset mosi": only there; ARGS=--publish: into results/)
	$(BIN)/ramer study $(NAME) --workers $(JOBS) --runs $(RUNS) $(ARGS)
studies: $(READY)  ## rerun all studies and the page results/studies.md would be
	$(BIN)/ramer study --workers $(JOBS) --runs $(RUNS) $(ARGS)
report: $(READY)  ## write every table, figure and page from the committed lines (ARGS=--check: say what is stale)
	$(BIN)/ramer report $(ARGS)
bench: $(READY)  ## measure the store anew, in ratios, and print each target with what was measured (a quiet machine; an hour)
	for name in search stages engines kept beside; do $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/targets.py && $(BIN)/python benchmarks/scale.py
faults: $(READY) ## put faults into small sweeps and count what is lost, into results/bench/faults.csv (as root on Linux; an hour)
	$(BIN)/python benchmarks/faults.py $(ARGS)
test: lint  ## the linter, then every test (ARGS=--slow: the long ones too)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup $(ARGS)
lint: $(READY)  ## ruff's rules and format, and the types of the package
	$(BIN)/ruff check -q $(LINTED) ramer
	$(BIN)/ruff format -q --check $(LINTED)
	$(BIN)/mypy
format: $(READY)  ## write ruff's format into notebooks and tests
	$(BIN)/ruff format -q $(LINTED)
sync: $(READY)  ## export the notebooks to ramer/ and clean them
	$(BIN)/nbdev_export && $(BIN)/nbdev_clean
render: $(READY)  ## rerun the library notebooks and keep their outputs
	$(BIN)/python tools/render.py
docs: $(READY)    ## the documentation site, into site/html (no network; two minutes)
	$(BIN)/python tools/documentation.py
release: $(READY) ## build and try a release, into dist/ (ARGS=--trial: what is not ready yet, too)
	$(BIN)/python tools/release.py $(addprefix --find-links ,$(LINKS)) $(ARGS)
lock:           ## resolve the exact versions again
	$(BIN)/uv pip compile -q pyproject.toml --all-extras --group dev -c constraints.txt $(WHERE) \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate --no-header -o requirements.lock
	$(BIN)/uv pip compile -q - --generate-hashes --no-annotate --no-header -o requirements.uv.lock <<< "$$(grep -oE '^uv==[^ ]+' requirements.lock)"
clean:          ## remove the environment and what was built
	rm -rf .venv site build dist *.egg-info
$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PY) -m venv .venv
	$(BIN)/python -m pip install -q --require-hashes --no-deps -r requirements.uv.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode --require-hashes $(WHERE) -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --editable .
	touch $@
