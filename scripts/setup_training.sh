#!/usr/bin/env bash
# Adds to .venv (or .venv-jazzy) what computes with torch, learns and exports, and the tools of tests and checks, once.
# Usage: scripts/setup_training.sh   (`make setup-training` calls it, after scripts/setup.sh)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"

step "Setting up torch: PyTorch, training, export and tests into $(basename "$venv"), from wheels (1.8 GB more) ..."
forget_other_ros
run_logged pip-training "$venv/bin/python3" -m pip install --disable-pip-version-check --progress-bar off \
  --constraint requirements/constraints.txt --requirement "requirements/ros-$distro.txt" \
  --requirement requirements/runtime.txt --requirement requirements/onnx.txt --requirement requirements/simulation.txt \
  --requirement requirements/torch.txt --requirement requirements/development.txt
run_logged mend-wheels "$venv/bin/python3" scripts/mend_wheels.py
touch "$venv/.training"
