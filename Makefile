# The two commands of the README, `make reproduce` and `make test`, set up all they need: Python 3.11, pip and git suffice.
# Working files (stamps, executed copies, logs) live in build/, so a fresh clone executes everything.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

TORCH  := 2.13.0

# Two notebooks at a time, unless the command line says otherwise (-j1, -j4); a make that a recipe starts is on its own.
MAKEFLAGS += -j2
unexport MAKEFLAGS
ifneq ($(word 2,$(MAKECMDGOALS)),)
.NOTPARALLEL: # `make clean reproduce`: one after the other
endif

# Of `make quickstart`: as it was given, dollars and quotes included, and through the environment.
export QUICKSTART_TEXT = $(value TEXT)

NOTEBOOKS := $(filter-out notebooks/00_%,$(wildcard notebooks/[0-9][0-9]_*.ipynb))
STAMPS    := $(NOTEBOOKS:notebooks/%.ipynb=build/stamps/%.done)
# Rewritten when a file comes, goes or changes. Make itself cannot handle names with blanks.
FILES     := build/files.list
$(shell mkdir -p build; find paper_lib data -type f ! -path '*/.*' ! -name '*.pyc' -exec cksum {} + | sort > $(FILES).new; \
  cmp -s $(FILES).new $(FILES) || cp $(FILES).new $(FILES))

.DELETE_ON_ERROR:
.PHONY: help reproduce check test quickstart model live verify html lint bench manifest links lock lowest clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

reproduce: $(STAMPS) ## execute the notebooks: every figure and table of the paper
	@echo "reproduce: figures/ and notebooks/ are up to date"

# Each stamp depends on the products it made (build/stamps/*.d), so one that is deleted or edited is made again.
-include $(wildcard build/stamps/*.d)

build/stamps/%.done: notebooks/%.ipynb $(FILES) $(VENV)/.light
	@$(PY) -m paper_lib execute $< --stamp $@

test: $(VENV)/.full ## run the test suite
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: lint ## check style and run the fast tests, in a minute
	$(PY) -m pytest -q -n 2 -m "not slow"

verify: $(VENV)/.light ## check the data's hashes, recompute every product and compare
	@$(PY) -m paper_lib verify --no-decode

quickstart: $(VENV)/.full ## cram a sentence into a vector of a real model: make quickstart TEXT="your own"
	@$(PY) -m paper_lib execute notebooks/00_quickstart.ipynb -p OUT_DIR=build/quickstart \
	  $${QUICKSTART_TEXT:+-p} $${QUICKSTART_TEXT:+"TEXT=$$QUICKSTART_TEXT"}
	@$(PY) -m nbconvert --to html --log-level ERROR --output-dir build/html build/executed/00_quickstart.ipynb
	@echo "quickstart: see build/html/00_quickstart.html"

NAME := smollm2-135m
model: $(VENV)/.full ## fetch a real language model, 100 MB: make model NAME=smollm2-135m
	@$(PY) -m paper_lib fetch $(NAME)

live: $(VENV)/.full ## add torch, transformers and Ray, for `python -m paper_lib run`, `train`, `decode`

html: $(VENV)/.light ## render the notebooks for reading, into build/html
	@$(PY) -m nbconvert --to html --log-level ERROR --output-dir build/html $(NOTEBOOKS)
	@echo "html: see build/html"

lint: $(VENV)/.full ## check style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

BENCHMARKS := reproduce memory store floor ideas busy sweep horizons kill throughput
bench: $(VENV)/.full ## measure speed, memory and safety against named references (1.5 hours on 2 cores)
	@for name in $(BENCHMARKS); do echo "# $$name" && $(PY) benchmarks/$$name.py || exit 1; done

manifest: $(VENV)/.light ## accept a change under data/: rewrite its hashes
	@$(PY) -m paper_lib manifest

links: $(VENV)/.light ## carry the repository's address from pyproject.toml into badges and clone commands
	@$(PY) -m paper_lib links

lock: ## resolve pyproject.toml into requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet 'torch==$(TORCH)'
	build/lock/bin/python -m pip install --quiet '.[live,cluster,train,test]' 'setuptools>=77'
	build/lock/bin/python -m pip freeze --all --exclude paper-lib --exclude pip | sed 's/^\(torch==.*\)+.*/\1/' > requirements.lock

lowest: ## check that the oldest versions that pyproject.toml allows give the same numbers
	rm -rf build/lowest && $(PYTHON) -m venv build/lowest
	sed -n '/^dependencies/,/^]/s/^ *"\(.*\)>=\(.*\)",$$/\1==\2/p' pyproject.toml > build/lowest/constraints.txt
	build/lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint build/lowest/constraints.txt --editable .
	build/lowest/bin/python -W ignore -m paper_lib verify --no-decode

clean: ## delete working files; the environment in .venv stays
	rm -rf build

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The lock is a constraint: each environment takes from it what it needs, at the version written there.
$(VENV)/.light: pyproject.toml requirements.lock | $(PY)
	@echo "installing the light environment into $(VENV) (about a minute, once)"
	@PIP_CONSTRAINT=requirements.lock $(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@$(PY) -c 'import matplotlib.font_manager'  # builds the font cache now, not inside a notebook
	@touch $@

# torch comes first: whatever is asked for after it takes the build that is there.
$(VENV)/.full: $(VENV)/.light
	@echo "adding torch, transformers and the test tools to $(VENV) (one to five minutes, once)"
	@PIP_CONSTRAINT=requirements.lock $(PY) -m pip install --quiet --disable-pip-version-check torch
	@PIP_CONSTRAINT=requirements.lock $(PY) -m pip install --quiet --disable-pip-version-check --editable '.[live,cluster,train,test]'
	@touch $@
