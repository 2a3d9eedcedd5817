# Two commands are enough: `make lab` to learn, `make test` to verify. They need Python 3.11 or newer, and make.
# `make site` and `make slides` need npm, too, and `make test-browser` a Chromium.
#
#   PYTHON=/path/to/python3.12   the interpreter that .venv is made from (found by itself otherwise)
#   LAB_ARGS="--port 9999"       more options for JupyterLab; in a container also --ip=0.0.0.0
#   NAMES="02_rnn 03"            the lessons that `make lessons` and `make slides` build (all of them otherwise)
#   WORK=my_copies               the folder, in this one, of the copies of the lessons that `make lab` opens (work)
#   COURSE_DATA=/path/to/data    the folder of data sets, for a machine without a network

.DEFAULT_GOAL := help
.PHONY: help setup lab test lessons site slides web lint bench mutants test-browser test-gpu

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORK := work
WEB := build/web

# JupyterLab's offer to fetch news is a pop-up over the first lesson, and a request that a machine without a network cannot make
# (so is its manager of extensions, which `make lab` leaves out).
NEWS := @jupyterlab/apputils-extension:announcements

# Data sets beside the checkout are used unless the caller names others.
ifeq ($(origin COURSE_DATA),undefined)
ifneq ($(wildcard ../shared/data/registry.json),)
export COURSE_DATA := $(CURDIR)/../shared/data
endif
endif

# Root needs leave to start Jupyter (containers); without a display a browser could only be a text browser in this terminal.
LAB_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
LAB_BROWSER = $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(BROWSER)$(filter Darwin,$(shell uname)),,--no-browser)

# Two processes of one thread each: with two threads each, on two cores, they wait for one another and take 2 to 30 times as
# long. Scope by file: a notebook must not be split between processes. Solutions run by tests are nobody's progress.
PYTEST = COURSE_PROGRESS= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n 2 --dist loadscope
NBVAL = --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval_sanitize.cfg --nbval-cell-timeout=180

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The stamp is written last and holds the folder: an installation that broke half-way, was moved or was copied is made anew.
# Requirements newer than the stamp are installed on top. Matplotlib lists the fonts now, lest it says so inside a lesson.
setup: ## make .venv and install everything; run it again to repair or update
	@set -e; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c '' 2>/dev/null; then \
	    [ -n "$$(find pyproject.toml constraints.txt -newer $(STAMP))" ] || exit 0; \
	    rm $(STAMP); \
	    echo "Updating $(VENV)."; \
	else \
	    py= old=; \
	    for name in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
	        if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then py=$$name; break; fi; \
	        version=$$("$$name" -V 2>/dev/null) && old="$$old; $$name is $$version"; \
	    done; \
	    if [ -z "$$py" ]; then \
	        echo "error: Python 3.11 or newer not found$$old; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	    elif ! "$$py" -c 'import ensurepip, venv' 2>/dev/null; then \
	        echo "error: $$py has no venv module; install it (Debian: apt install python3-venv)" >&2; exit 1; \
	    fi; \
	    echo "Installing the course into $(VENV): some minutes and about 2.3 GB, once."; \
	    rm -f $(STAMP); \
	    "$$py" -m venv --clear $(VENV); \
	fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,keras]"; \
	$(BIN)/jupyter-labextension disable --level=sys_prefix --log-level=ERROR $(NEWS); \
	$(BIN)/python -c 'import matplotlib.font_manager'; \
	echo "$(CURDIR)" > $(STAMP); \
	echo "Done."

lab: setup ## open JupyterLab on your copy of the first lesson (LAB_ARGS="--port 9999" for options)
	@$(BIN)/course lessons $(WORK)
	$(BIN)/python -m jupyterlab --LabApp.default_url=/lab/tree/$(WORK)/00_start_here.ipynb --LabApp.extension_manager=readonly --log-level=WARN $(LAB_ROOT) $(LAB_BROWSER) $(LAB_ARGS)

test: lint ## check everything: style, unit tests, every notebook executed and compared
	$(PYTEST) -m "not gpu" tests
	$(PYTEST) $(NBVAL) notebooks/*.ipynb notebooks/instructor/*.ipynb

lessons: setup ## execute the lessons and write the notebooks anew (NAMES="02_rnn 03" for some)
	$(BIN)/python notebooks/build.py $(NAMES)

site: web ## build the web site of the course: build/site/index.html
	$(BIN)/python docs/site/build.py --out build/site --web $(WEB)/node_modules

slides: web ## build a deck of slides for each lesson: build/slides/index.html
	$(BIN)/python docs/slides/build.py $(NAMES) --out build/slides --web $(WEB)/node_modules

# MathJax and reveal.js, in the versions that package-lock.json pins; the site and the slides carry copies of them.
web: setup
	@if ! cmp -s docs/web/package-lock.json $(WEB)/installed.json; then \
	    command -v npm >/dev/null || { echo "error: npm not found; install Node.js (Debian: apt install npm)" >&2; exit 1; }; \
	    mkdir -p $(WEB) && cp docs/web/package.json docs/web/package-lock.json $(WEB)/ && \
	    npm ci --prefix $(WEB) --no-audit --no-fund --loglevel=error && \
	    cp docs/web/package-lock.json $(WEB)/installed.json; \
	fi

lint: setup ## check the style of the code and the notebooks
	$(BIN)/ruff check .

bench: setup ## measure speed side by side, a table of ratios for each benchmark
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

mutants: setup ## plant every known bug in the library and say which law it breaks
	$(BIN)/python tests/test_mutants.py

test-browser: site slides ## open JupyterLab, the site and the slides in Chromium (CHROMIUM=/path), and check what is seen
	COURSE_PROGRESS= $(BIN)/python -m pytest -q tests/browser

test-gpu: setup ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu tests
