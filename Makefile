# make book    build the site        make lab     the chapters in JupyterLab
# make test    run the tests         make serve   the site on http://localhost:8000
# make check   all that CI checks    make lint    style and types
# make pdf     the whole book as one PDF, after `make book`; it needs Chromium
# make torch   install PyTorch, so that what is written for it is tested and run too
# make fast    install Numba, so that the compiled engine is tested too
# make bench   speed, memory and accuracy beside SciPy, PyTorch and JAX; a trial: ROUNDS=1
# make audit   what the distillation losses of other libraries compute
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(shell command -v uv 2>/dev/null),)
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
else
INSTALL := uv pip install --quiet --python $(BIN)/python
endif
INSTALL += --constraint constraints.txt
SITE := _build/html
BUILD := $(BIN)/jupyter-book build . --all -W -n --keep-going
TORCH = $(wildcard $(VENV)/lib/*/site-packages/torch)
CHAPTER = $(filter-out $(if $(TORCH),,%_in_pytorch.ipynb),$(wildcard notebooks/*.ipynb))
# The networks of one chapter are trained for a minute.
SELECT := -m "not slow" --ignore-glob "*_distilling_a_network.ipynb"

# Each chapter is run by a new process, which would compile SymPy anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book executed-book pdf test coverage site-test lint check links torch fast lab serve
.PHONY: bench wheel audit notebooks clean
.DELETE_ON_ERROR:

# The stored outputs have the digits of this engine. `make bench` and `make audit` choose theirs.
executed-book test lab notebooks: export KD_NOTES_ENGINE := numpy
ifeq ($(shell uname -m),x86_64)  # PyTorch's own sums differ where registers have 512 bits
executed-book test lab notebooks: export ATEN_CPU_CAPABILITY := avx2
endif

# With the outputs that are stored in the chapters, which `make test` compares with new ones.
book: $(VENV)/has-book
	@echo "Building the site from the stored outputs: about half a minute ..."
	$(BUILD)
	@echo "Open $(CURDIR)/$(SITE)/index.html"

# With the outputs of a new run, whatever is stored, and the PDF that its pages then offer. This is
# what CI publishes.
executed-book: export KD_NOTES_PDF := 1
executed-book: $(VENV)/has-book $(VENV)/has-chapters
	$(BIN)/python tools/execute.py _build/.jupyter_cache $(CHAPTER)
	sed -e 's|notebooks/[*].ipynb|$(if $(TORCH),none,notebooks/*_in_pytorch.ipynb)|' \
	    -e 's|execute_notebooks: force|execute_notebooks: cache|' _config.yml > .executed.yml
	$(BUILD) --config .executed.yml
	$(MAKE) pdf

pdf: $(VENV)/has-site
	$(BIN)/python tools/pdf.py
	@echo "Printed $(CURDIR)/$(SITE)/kd-notes.pdf"

# One file after the other in each process, the long ones first; threads of several processes
# would wait for each other.
test: $(VENV)/has-test
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	    $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder \
	    $(SELECT)

# The notebooks' cells are run by other processes, which are not measured.
coverage: $(VENV)/has-test
	$(MAKE) test SELECT="tests kd_notes --cov"

# A browser for each process; tests of one page stay together, for which it is opened once.
site-test: $(VENV)/has-site
	$(BIN)/python -m pytest tests/site -n auto --dist worksteal

lint: $(VENV)/has-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .

# One after the other: the site is built from clean, so that no old page hides a warning.
check:
	$(MAKE) fast
	$(MAKE) lint
	rm -rf _build
	$(MAKE) executed-book
	$(MAKE) test SELECT=
	$(MAKE) site-test

# The addresses of other sites that the book links to; it needs a network.
links: $(VENV)/has-book
	$(BIN)/jupyter-book build . --builder linkcheck --path-output _build/links

torch fast: $(BIN)/python
	$(INSTALL) --editable ".[$@]"

# JupyterLab hides the figures of a notebook that it does not trust, for an SVG may hold a script.
lab: $(VENV)/has-lab
	$(BIN)/jupyter trust notebooks/*.ipynb > /dev/null
	$(BIN)/jupyter lab --LabApp.app_settings_dir=tools/jupyterlab \
	    --LabApp.default_url=/lab/tree/notebooks/README.md

serve: book
	$(BIN)/python -m http.server --bind localhost --directory $(SITE) 8000

bench: $(VENV)/has-bench
	$(BIN)/python benchmarks/run.py $(if $(ROUNDS),--rounds $(ROUNDS)) \
	    $(if $(MINUTES),--minutes $(MINUTES))
	$(BIN)/python benchmarks/figures.py

# The distributions, and a look at whether the library needs more than NumPy.
wheel: $(VENV)/has-release
	rm -rf dist
	$(BIN)/python -m build
	$(PYTHON) -m venv --clear _build/alone
	_build/alone/bin/python -m pip install --quiet dist/*.whl
	_build/alone/bin/python -I -c "import importlib.metadata as m, kd_notes.audit as _; \
	    assert {d.name for d in m.distributions()} - {'pip', 'setuptools'} == {'kd-notes', 'numpy'}"

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
notebooks: $(VENV)/has-chapters
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute \
	    --ExecutePreprocessor.record_timing=False $(CHAPTER)
	$(BIN)/jupyter nbconvert --to notebook --inplace --coalesce-streams $(CHAPTER)

clean:
	rm -rf _build dist $(VENV) .venv-audit

# The groups of pyproject.toml, each when a target asks for it.
$(VENV)/has-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the packages of the group '$*' into $(VENV) ..."
	$(INSTALL) --editable . --group $*
	touch $@

# The pip that Python 3.11 to 3.13 bring knows no groups.
$(BIN)/python:
	@echo "Making an environment in $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
