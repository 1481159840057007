# make book    build the site        make lab     the chapters in JupyterLab
# make test    run the tests         make serve   the site on http://localhost:8000
# make check   all that CI checks    make lint    style and types
# make torch   install PyTorch, so that what is written for it is tested and run too
# make bench   speed, memory and accuracy beside SciPy, PyTorch and JAX
# make audit   what the distillation losses of other libraries compute
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SITE := _build/html
READ := $(wildcard kd_notes/*.py kd_notes/*/*.py kd_notes/_book/fonts/*.ttf book/explorer.*)
READ += benchmarks/results.json audits/results.json
TORCH = $(wildcard $(VENV)/lib/*/site-packages/torch)
CHAPTER = $(filter-out $(if $(TORCH),,%_in_pytorch.ipynb),$(wildcard notebooks/*.ipynb))

.PHONY: book test site-test lint check torch lab serve bench audit notebooks clean
.DELETE_ON_ERROR:

book: $(VENV)/installed _build/sources
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	@echo "Open $(CURDIR)/$(SITE)/index.html"

# The cached executions know the notebooks but not what those read, so a change
# of the code, the benchmarks or the environment empties the cache.
_build/sources: $(READ) constraints.txt pyproject.toml
	rm -rf _build
	mkdir _build
	touch $@

# One file after the other in each process; threads of several processes would wait for another.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

site-test: $(VENV)/installed
	$(BIN)/python -m pytest tests/site

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One after the other: the site is built from clean, so that no old page hides a warning.
check:
	$(MAKE) lint
	rm -rf _build
	$(MAKE) book
	$(MAKE) test
	$(MAKE) site-test

torch: $(VENV)/installed
	$(INSTALL) --editable ".[torch]"

lab: $(VENV)/installed
	$(INSTALL) --editable ".[lab]"
	$(BIN)/jupyter lab --notebook-dir notebooks

serve: book
	$(BIN)/python -m http.server --bind localhost --directory $(SITE) 8000

bench: $(VENV)/installed
	$(INSTALL) --editable ".[bench]"
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/figures.py

# In an environment of its own: some of these libraries want other versions of each other.
audit: .venv-audit/installed
	.venv-audit/bin/python -m audits.run

.venv-audit/installed: audits/requirements.txt audits/requirements-alone.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet -r audits/requirements.txt --editable .
	.venv-audit/bin/python -m pip install --quiet --no-deps -r audits/requirements-alone.txt
	touch $@

# Run the chapters, or one, and store their outputs, as they are committed. A second pass joins
# printed text that arrived in several pieces; in the first pass this would precede the run.
notebooks: $(VENV)/installed
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute \
	    --ExecutePreprocessor.record_timing=False $(CHAPTER)
	$(BIN)/jupyter nbconvert --to notebook --inplace --coalesce-streams $(CHAPTER)

clean:
	rm -rf _build $(VENV) .venv-audit

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[book,test,site,lint]"
	touch $@
