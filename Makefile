# The commands of the project. `make help` lists them.
# The first Python that fits, else python3, which tools/install.py then refuses by name.
PYTHON ?= $(shell for each in python3.11 python3 python3.12 python3.13; do \
  $$each -c 'import sys; sys.exit(not (3, 11, 0, "final") <= sys.version_info < (3, 14))' 2>/dev/null && echo $$each && exit; \
  done; echo python3)
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Images for containers often forbid bytecode: each of the tests' processes would then compile torch and the CDK anew.
export PYTHONDONTWRITEBYTECODE :=
TESTS ?= tests
# What runs with the Inf1 container's versions: graph files and their replay (every family's is replayed there by `make
# test`, which also compiles and runs jobs with that Python), published logs, and what is served. Models are captured with
# the project's own torch.
TESTS310 ?= tests/compile/portable/test_check.py tests/compile/portable/test_file.py tests/compile/portable/test_tensors.py \
	tests/compile/analysis/test_published.py tests/compile/analysis/test_neuron_log.py tests/compile/analysis/test_operators.py \
	tests/inference_code $(SOCKETS310)
# What is about sockets and processes alone is the same in both: `make test` has it (TESTS310=tests/inference_code too).
SOCKETS310 := $(foreach each,server/test_load server/test_traffic server/test_browser_guard workers/test_processes,\
	--ignore=tests/inference_code/$(each).py)
# One process a core and one for what waits. The tests of a file stay together, because they share its fixtures; files in order of their names,
# so that the long ones are not left for the end.
PARALLEL := -n $(shell expr $$(nproc) + 1) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo weights up down test test-full test-python310 check coverage-table current-models format lines lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## create .venv from the hashed locks and install the CDK CLI (a second run does nothing)
	@python="$(PYTHON)"; command -v "$$python" >/dev/null || { \
	  echo "setup failed: there is no $$python: apt-get install python3 python3-venv" >&2; exit 1; }; \
	"$$python" tools/install.py

demo: setup ## the whole way as a rehearsal: build, deploy to the embedded AWS, invoke, destroy; results in build/demo/
	@$(PY) tools/demo.py run

weights: setup ## download the trained weights of the zoo, by hash, to build/weights/
	@$(PY) -m compile weights yolov3-tiny

up: setup ## like demo, but leave the embedded AWS and its endpoint running
	@$(PY) tools/demo.py up

down: setup ## destroy what `make up` deployed and stop the embedded AWS
	@$(PY) tools/demo.py down

test: setup ## every test but the long ones (TESTS=path narrows)
	@$(PY) -m pytest $(PARALLEL) $(TESTS)

test-full: setup ## every test, the long ones too
	@$(PY) -m pytest -rs -m 'slow or not slow' $(TESTS)

test-python310: setup ## what runs in the Inf1 container, with its Python 3.10 and torch 1.13.1 (TESTS310=path narrows)
	@$(PYTHON) tools/install.py --python310; status=$$?; \
	if [ $$status -eq 3 ]; then exit 0; elif [ $$status -ne 0 ]; then exit $$status; fi; \
	.venv310/bin/python -m pytest $(PARALLEL) $(TESTS310)

check: setup ## lint, format, types and the import contracts
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

coverage-table: setup ## docs/coverage.md at real sizes, replayed with torch 1.13.1 where .venv310 is there (hours; goes on where it was)
	@python=.venv310/bin/python; test -x $$python || python=$(PY); $(PY) tools/coverage_table.py --python $$python

current-models: setup ## docs/current-models.md: models of 2025 and 2026, replayed with torch 1.13.1 where .venv310 is there (hours; goes on where it was)
	@test -d build/libraries/timm || $(PY) -m pip install --quiet --no-deps --target build/libraries timm==1.0.31 scipy==1.17.1
	@python=.venv310/bin/python; test -x $$python || python=$(PY); \
	HF_HUB_OFFLINE=1 $(PY) tools/current_models.py --python $$python --libraries build/libraries

format: setup ## let ruff format and mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lines: ## code lines of each room, without blank lines, comments and docstrings
	@$(PYTHON) tools/lines.py

lock: ## resolve requirements/*.in anew (needs uv)
	uv pip compile requirements/main.in -o requirements.txt --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate
	uv pip compile requirements/python310.in -o requirements/python310.txt --generate-hashes --python-version 3.10 --no-emit-index-url --no-emit-find-links --no-annotate
	uv pip compile requirements/preprocess.in -o requirements/preprocess.txt --generate-hashes --python-version 3.11 --no-emit-package numpy --no-emit-index-url --no-emit-find-links --no-annotate
	for minor in 10 11 12; do \
	uv pip compile requirements/native.in -o images/native/requirements-py3$$minor.txt --generate-hashes --python-version 3.$$minor --constraint requirements/python310.txt --no-emit-index-url --no-emit-find-links --no-annotate || exit 1; done
	uv pip compile requirements/cpu.in -o images/native/torch-py311.txt --generate-hashes --python-version 3.11 --constraint requirements.txt --no-emit-index-url --no-emit-find-links --no-annotate
	sed -n '/^torch/{N;s/ \\$$//p}' requirements/torch.txt >> images/native/torch-py311.txt
	for server in torchserve310:3.10 torchserve:3.11 triton:3.11; do \
	uv pip compile requirements/$${server%:*}.in -o requirements/$${server%:*}.txt --generate-hashes --python-version $${server#*:} $$(test $$server != torchserve:3.11 || echo --no-emit-package numpy) --no-emit-package pillow --no-emit-index-url --no-emit-find-links --no-annotate || exit 1; done

clean: ## remove what builds made (not the environments)
	rm -rf build cdk.out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
