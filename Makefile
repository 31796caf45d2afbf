# Everything a newcomer needs on an x86-64 Linux machine without ROS. `make help` lists it; the work is in scripts/.
# With ROS 2 installed, none of this is needed: put the package into a workspace and run colcon build.

SHELL := bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
DISTRO ?= kilted
export DISTRO
suffix := $(if $(filter-out kilted,$(DISTRO)),-$(DISTRO))
EPISODES ?=
HEADLESS ?=
RECORD ?=
RUNTIME ?= onnx
METHODS ?= full dysl dysl_paper static fixed random controllers guidance verify oracle full@4 dysl@4 static@4
ARGS ?=

in_environment := source scripts/activate.bash &&
sources := $(shell find dysl_vla_ros msg srv launch config checkpoints -not -name '__pycache__' -not -name '*.pyc' \
  -not -name '.*' 2>/dev/null) CMakeLists.txt package.xml programs.txt scripts/build.sh

.PHONY: help setup setup-training setup-lerobot build demo test test-jazzy test-lerobot test-all bench bench-budget benchmark lint clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Torch is no part of it unless RUNTIME=torch: the shipped checkpoint is exported, and ONNX Runtime computes it.
demo: $(if $(filter torch,$(RUNTIME)),setup-training) build ## watch the policy move a simulated arm (EPISODES=2 a task, HEADLESS=1, RECORD=DIR: a bag, RUNTIME=torch); writes demo_out/
	@$(in_environment) dysl_vla demo --runtime $(RUNTIME) $(if $(EPISODES),--episodes $(EPISODES)) $(if $(filter-out 0,$(HEADLESS)),--headless) \
	  $(if $(RECORD),--record "$(RECORD)") $(ARGS)

test: setup-training build ## the test suite, without the slow ones (ARGS='-k worker'); scripts/test.sh says how
	@$(in_environment) scripts/test.sh $(ARGS)

test-jazzy: export DISTRO := jazzy
test-jazzy: ## the tests with real nodes on ROS 2 Jazzy, in .venv-jazzy (`make demo DISTRO=jazzy` likewise)
	@$(MAKE) --no-print-directory DISTRO=jazzy setup-training build
	@$(in_environment) PART=nodes scripts/test.sh $(ARGS)

test-lerobot: setup-training ## the families that LeRobot hosts, in .venv-lerobot (SLOW=1: all of them); skipped where there is no Python 3.12 or 3.13
	@scripts/test_lerobot.sh $(ARGS)

test-all: setup-training build ## the whole test suite
	@$(in_environment) SLOW=1 scripts/test.sh $(ARGS)

bench: setup-training build ## milliseconds of a control step, full depth and skipping, torch and ONNX Runtime side by side; writes bench_out/bench.json
	@$(in_environment) python3 benchmarks/step_latency.py $(ARGS) && python3 benchmarks/onnx_latency.py

bench-budget: setup-training build ## deadlines missed under load, with control.budget_ms and without; writes bench_out/budget.json
	@$(in_environment) python3 benchmarks/budget_latency.py $(ARGS)

benchmark: setup-training build ## the README's table but its shallow policies, 2 hours; METHODS='full dysl' EPISODES=10 for a part; resumed; writes benchmark_out/
	@$(in_environment) dysl_vla evaluate checkpoints/reference --methods $(METHODS) --out benchmark_out \
	  --paper-adapters checkpoints/compared/dysl_paper \
	  --episodes $(or $(EPISODES),50) $(ARGS)

lint: setup-training ## ruff and mypy
	@.venv$(suffix)/bin/ruff check .
	@.venv$(suffix)/bin/mypy

setup: .venv$(suffix)/.complete ## Debian packages (as root, else they are named) and .venv, without torch; done once
setup-training: .venv$(suffix)/.training ## torch beside them, what learns and exports, and the tools of the tests; done once
setup-lerobot: setup ## .venv-lerobot: a LeRobot environment to test with (5 GB; LEROBOT_PYTHON=/path/to/python3.12)
	@scripts/setup_lerobot.sh
build: install$(suffix)/.complete ## build the package into install/; done when a source has changed

with_torch := requirements/torch.txt requirements/development.txt
.venv$(suffix)/.complete: $(filter-out requirements/ros-%.txt $(with_torch),$(wildcard requirements/*.txt)) \
  requirements/ros-$(DISTRO).txt scripts/setup.sh scripts/mend_wheels.py $(if $(wildcard .venv$(suffix)/bin/pip),$(shell \
  grep -qsF "$(CURDIR)/.venv$(suffix)/" .venv$(suffix)/bin/pip || echo moved))
	@scripts/setup.sh "$(PYTHON)"

.venv$(suffix)/.training: .venv$(suffix)/.complete $(with_torch) scripts/setup_training.sh
	@scripts/setup_training.sh

install$(suffix)/.complete: .venv$(suffix)/.complete $(sources)
	@scripts/build.sh

.PHONY: moved
moved: # this folder was moved or copied since .venv was made; the programs in it name the old place

clean: ## remove what was built, tested and shown; keep .venv and benchmark_out
	rm -rf build build-jazzy install install-jazzy log demo_out bench_out .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## remove .venv as well
	rm -rf .venv .venv-jazzy .venv-lerobot .venv-lerobot-tools
