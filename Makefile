# Everything here works in a fresh clone: the first target that needs it sets up $(VENV), with the
# developers' tools where it needs those.
#   make demo DEMO_ARGS="..."         make test PYTEST_ARGS="tests/layers -k nms"
#   make test PYTHON=python3.12       make test TORCH="torch==2.9.* torchvision"
#   make matting MATTING_ROWS="no-rgb no-fusion mae dice"
VENV ?= .venv
# PYTHON_WAS and TORCH_WAS, with which $(VENV) was set up. They hold until others are named.
-include $(VENV)/choice.mk
PYTHON ?= $(or $(PYTHON_WAS),python3)
TORCH ?= $(or $(TORCH_WAS),torch torchvision)
EXTRAS ?= eval,matting,stamps,timm,video
DEV_EXTRAS ?= dev,docs,export,mmdet
PYTEST_ARGS ?=
DEMO_ARGS ?=
WEB_MODEL ?= solo_d2/objects_lite0
OUT ?= output/web
DEMO_PHOTOGRAPHS ?= astronaut.png chelsea.png coffee.png motorcycle_left.png rocket.jpg
MATTING_ARGS ?=
MATTING_ROWS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
DEV_STAMP := $(VENV)/.dev-stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check
SETUP_FILES := pyproject.toml solo_d2/install_detectron2.py solo_d2/_detectron2_fixes.py

.DEFAULT_GOAL := help
.PHONY: help setup dev demo demo-train web matting docs test exports coverage lint format clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

setup: $(STAMP) ## create or update the virtual environment

dev: $(DEV_STAMP) ## the same, with the tools for tests and style

# Another PYTHON or TORCH than before: everything is set up anew.
ifdef PYTHON_WAS
ifneq ($(strip $(PYTHON)|$(TORCH)),$(strip $(PYTHON_WAS)|$(TORCH_WAS)))
CHANGED := $(VENV) was set up with $(PYTHON_WAS) and $(TORCH_WAS)
.PHONY: $(STAMP)
endif
endif

# Reused until one of SETUP_FILES changes. torch comes first: Detectron2 is installed against it.
# Debian without python3-venv has no ensurepip; the system's pip then puts pip into the new venv.
$(STAMP): $(SETUP_FILES)
	@set -e; start=$$(date +%s); \
	fail() { echo "make: error: $$1" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  fail "$(PYTHON) is missing or older than Python 3.10; name another: make PYTHON=python3.12"; \
	if [ -n "$(CHANGED)" ] || ! $(PIP) --version >/dev/null 2>&1; then \
	  if [ -n "$(CHANGED)" ]; then echo "[setup] $(CHANGED); now $(PYTHON) and $(TORCH)"; fi; \
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
	printf 'PYTHON_WAS := %s\nTORCH_WAS := %s\n' "$(PYTHON)" "$(TORCH)" > $(VENV)/choice.mk; \
	touch $@; \
	echo "[setup] done in $$(cat $(VENV)/.setup-seconds) s"

$(DEV_STAMP): $(STAMP)
	@echo "[setup] tools of developers [$(DEV_EXTRAS)]"
	@$(PIP) install --quiet --constraint $(VENV)/constraints.txt -e ".[$(EXTRAS),$(DEV_EXTRAS)]"
	@$(PIP) check
	@touch $@

# Photographs that scikit-image carries.
PHOTOGRAPHS = $$($(BIN)/python -c "import importlib.util as u; \
	print(u.find_spec('skimage').submodule_search_locations[0])")/data
demo: $(STAMP) ## masks on photographs, with a model that comes along (results in output/photographs)
	photographs="$(PHOTOGRAPHS)"; $(BIN)/solo-d2 predict --config-file solo_d2/objects_lite0 \
	  --input $(foreach name,$(DEMO_PHOTOGRAPHS),"$$photographs/$(name)") \
	  --output output/photographs --confidence-threshold 0.5 TEST.AUG.ENABLED True $(DEMO_ARGS)

demo-train: $(STAMP) ## train, evaluate and draw a small SOLOv2 (results in output/demo)
	$(BIN)/python demo/quickstart.py --setup-seconds $$(cat $(VENV)/.setup-seconds) $(DEMO_ARGS)

web: $(DEV_STAMP) ## write a page that finds instances in the browser (folder: OUT=output/web)
	$(BIN)/solo-d2 web $(WEB_MODEL) --output $(OUT)

# What is there already is not made again. MATTING_ARGS are config overrides of all trainings,
# MATTING_ROWS rows of Table S4 to train besides. On idle cores: make -j2 matting OMP_NUM_THREADS=1
MATTING := output/matting
MATTING_DATA := datasets/sofi
MATTING_MODELS := soft tuned $(MATTING_ROWS)
MATTING_PICTURES := $(MATTING_DATA)/val/00000*.jpg
config-solov2 := solov2_lite0
config-tuned := solov2_tuned_lite0
overrides-no-rgb := MODEL.SOLO.DETAILS.IMAGE False
overrides-no-fusion := MODEL.SOLO.DETAILS.FUSE False
overrides-mae := MODEL.SOLO.MASK_LOSS mae
overrides-dice := MODEL.SOLO.MASK_LOSS dice
with_weights = $(MATTING)/$(1)/config.yaml $(MATTING)/$(1)/model_final.pth
soft_solo = $(BIN)/python demo/matting.py --config-file $(MATTING)/soft/config.yaml \
	--weights $(MATTING)/soft/model_final.pth --input '$(MATTING_PICTURES)'

# glibc returns large tensors to the system and gets them back page by page, hundreds in a step.
# Where it keeps them, a step on two cores took 10 % (SOLOv2) to 16 % (Soft SOLO) less time.
demo-train matting $(MATTING)/%: export MALLOC_MMAP_MAX_ = 0
demo-train matting $(MATTING)/%: export MALLOC_TRIM_THRESHOLD_ = 17179869184

matting: $(MATTING)/tables.md $(MATTING)/cutouts ## train Soft SOLO, compare it, cut out (results in output/matting)

$(MATTING_DATA)/manifest.json: | $(STAMP)
	$(BIN)/python -m solo_d2.data.scenes stamps --sofi --one-class --size 256x336 \
	  --train 2000 --val 200 --output $(@D)

# One that was interrupted goes on; one that is older than what it is made of is made anew.
$(MATTING)/%/model_final.pth: $(MATTING_DATA)/manifest.json
	if [ -e $@ ]; then rm -r $(@D); fi
	$(BIN)/python train_net.py --resume --matting $(MATTING_DATA) \
	  --config-file configs/Matting/$(or $(config-$*),soft_solo_lite0).yaml \
	  OUTPUT_DIR $(@D) $(overrides-$*) $(MATTING_ARGS)

$(MATTING_MODELS:%=$(MATTING)/%/model_final.pth): $(MATTING)/solov2/model_final.pth

$(MATTING)/tables.md: $(MATTING_MODELS:%=$(MATTING)/%/model_final.pth)
	$(BIN)/python benchmarks/matting.py --data $(MATTING_DATA) --output $@ \
	  --solo $(call with_weights,solov2) --solo-tuned $(call with_weights,tuned) \
	  --soft $(call with_weights,soft) \
	  $(foreach row,$(MATTING_ROWS),--ablation $(row) $(call with_weights,$(row)))

$(MATTING)/cutouts: $(MATTING)/soft/model_final.pth
	-$(soft_solo) --output $(@D)/blurred --blur  # 1 where a picture has no instance
	-$(soft_solo) --output $(@D)/white --background white --class object
	-$(soft_solo) --output $@

docs: $(DEV_STAMP) ## build the documentation site, and check its links (in output/site)
	$(BIN)/python tools/build_site.py

# On the CPU, unless CUDA_VISIBLE_DEVICES is set: CUDA_VISIBLE_DEVICES=0 make test
# One process per core with one thread each; in this process: make test PYTEST_ARGS="-n 0 ..."
# They start Python some thirty times: compiled modules are kept, whatever the environment says.
TESTS = CUDA_VISIBLE_DEVICES="$${CUDA_VISIBLE_DEVICES-}" OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= \
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
test: $(DEV_STAMP) ## run the tests
	$(TESTS) $(PYTEST_ARGS)

exports: $(DEV_STAMP) ## export every head to every format, and compare (takes ten minutes)
	$(TESTS) -m exports tests/export tests/web $(PYTEST_ARGS)

coverage: $(DEV_STAMP) ## run the tests and list the lines that none of them reaches (takes longer)
	$(TESTS) --cov $(PYTEST_ARGS)

lint: $(DEV_STAMP) ## check style, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(DEV_STAMP) ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches (datasets and output stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
