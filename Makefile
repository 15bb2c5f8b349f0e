# Everything here works in a fresh clone: the first target that needs it sets up $(VENV).
#   make demo DEMO_ARGS="..."         make test PYTEST_ARGS="tests/layers -k nms"
#   make setup PYTHON=python3.12      make setup TORCH="torch==2.9.* torchvision"
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch torchvision
EXTRAS ?= dev,timm,video,stamps,matting,mmdet
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check
SETUP_FILES := pyproject.toml tools/install_detectron2.py tools/detectron2_fixes.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

setup: $(STAMP) ## create or update the virtual environment

# Reused until one of SETUP_FILES changes. torch comes first: Detectron2 is installed against it.
# Debian without python3-venv has no ensurepip; the system's pip then puts pip into the new venv.
$(STAMP): $(SETUP_FILES)
	@set -e; start=$$(date +%s); \
	fail() { echo "make: error: $$1" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  fail "$(PYTHON) is missing or older than Python 3.10; name another: make PYTHON=python3.12"; \
	if ! $(PIP) --version >/dev/null 2>&1; then \
	  echo "[setup 1/4] virtual environment $(VENV)"; \
	  if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	    $(PYTHON) -m venv --clear $(VENV); \
	  else \
	    { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	      $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || \
	      fail "cannot create $(VENV): install python3-venv (Debian: apt-get install python3-venv)"; \
	  fi; \
	fi; \
	echo "[setup 2/4] $(TORCH) (large; minutes on a slow line)"; \
	$(PIP) install $(TORCH); \
	echo "[setup 3/4] Detectron2"; \
	$(BIN)/python tools/install_detectron2.py; \
	echo "[setup 4/4] solo_d2 [$(EXTRAS)]"; \
	$(PIP) freeze | grep -E '^(torch|torchvision|numpy)==' > $(VENV)/constraints.txt; \
	$(PIP) install --quiet --constraint $(VENV)/constraints.txt -e ".[$(EXTRAS)]"; \
	$(PIP) check; \
	echo $$(( $$(date +%s) - start )) > $(VENV)/.setup-seconds; \
	touch $@; \
	echo "[setup] done in $$(cat $(VENV)/.setup-seconds) s"

demo: $(STAMP) ## train, evaluate and draw a small SOLOv2 (results in output/demo)
	$(BIN)/python demo/quickstart.py --setup-seconds $$(cat $(VENV)/.setup-seconds) $(DEMO_ARGS)

# On the CPU, unless CUDA_VISIBLE_DEVICES is set: CUDA_VISIBLE_DEVICES=0 make test
# One process per core with one thread each; in this process: make test PYTEST_ARGS="-n 0 ..."
test: $(STAMP) ## run the tests with coverage
	CUDA_VISIBLE_DEVICES="$${CUDA_VISIBLE_DEVICES-}" OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest --cov -n auto --maxprocesses 8 $(PYTEST_ARGS)

lint: $(STAMP) ## check style, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(STAMP) ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches (datasets and output stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
