# Two commands, and two for the curious; the work is in scripts/.
# COMFYUI_PATH=...  uses an installation that is there (see scripts/provision.py).

PYTHON ?= python3
HOST_VERSIONS := 0.30.0 0.16.3
TEST_PYTHON = $(shell $(PYTHON) scripts/provision.py --python)
comma := ,
space := $(subst ,, )
HOSTS := $(subst $(space),$(comma),$(HOST_VERSIONS))

.PHONY: help demo demo-resume test test-slow serve setup lint

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## teach the tiny base a style in a real ComfyUI, and show it
	@$(PYTHON) scripts/demo.py

demo-resume: ## kill a training in a real ComfyUI, and see it go on with the same bits
	@$(PYTHON) scripts/resume_demo.py

serve: ## the same ComfyUI with its page at http://127.0.0.1:8188
	@$(PYTHON) scripts/serve.py

setup: ## fetch what the tests need (they do it themselves as well)
	@$(PYTHON) scripts/provision.py --tests $(HOST_VERSIONS)

# Two processes of one thread each: most of the time goes into starting ComfyUI, and into small tensors.
test: setup ## every test but the slow ones: library, host, browser
	@OMP_NUM_THREADS=1 $(TEST_PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --hosts $(HOSTS) -m "not slow" $(ARGS)

test-slow: setup ## the slow ones: real checkpoints, full size
	@$(TEST_PYTHON) -m pytest --hosts $(HOSTS) -m slow $(ARGS)

lint: setup ## ruff
	@$(TEST_PYTHON) -m ruff check . && $(TEST_PYTHON) -m ruff format --check .
