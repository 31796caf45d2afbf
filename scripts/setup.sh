#!/usr/bin/env bash
# Makes what the build and the demo need, once: Debian packages and .venv, or .venv-jazzy where DISTRO=jazzy; without
# torch, which scripts/setup_training.sh adds. Usage: scripts/setup.sh [PYTHON]   (`make setup` calls it)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"
python=${1:-python3}

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
  fail "ROS 2 comes as wheels for x86-64 Linux only, this is $(uname -s) on $(uname -m)" \
    "install ROS 2 itself (docs.ros.org) and build this package with colcon in its workspace"
command -v "$python" >/dev/null || fail "there is no $python" "install Python 3.10 to 3.14 (Debian: apt-get install python3)" \
  "or name another one: make PYTHON=/path/to/python3 ..."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.10 | 3.11 | 3.12 | 3.13 | 3.14) ;;
  *) fail "$python is Python $version; the ROS wheels are made for 3.10 to 3.14" "name another one: make PYTHON=python3.12 ..." ;;
esac

step "Setting up (1 of 2): Debian packages ..."
missing=()
command -v cmake >/dev/null || missing+=(cmake)
command -v g++ >/dev/null || missing+=(g++)
"$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=("python$version-venv")
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
  missing+=("python$version-dev")
"$python" -c 'import ctypes; ctypes.CDLL("libOSMesa.so.8")' 2>/dev/null || missing+=(libosmesa6)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null ||
    fail "these Debian packages, or what they hold, are missing: ${missing[*]}" "install them, then run make again"
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing: ${missing[*]}" \
    "install them, then run make again: sudo apt-get install ${missing[*]}"
  step "  installing ${missing[*]}"
  run_logged apt-update apt-get update
  run_logged apt-install env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
fi

step "Setting up (2 of 2): $(basename "$venv") with $distro_name, ONNX Runtime and the simulator, from wheels (1.1 GB; minutes at first) ..."
forget_other_ros
if [ "$("$venv/bin/python3" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.prefix)' 2>/dev/null)" != "$version $venv" ]; then
  rm -rf "$venv" "build$suffix" "install$suffix" # made by another Python, or this folder was moved
  run_logged venv "$python" -m venv "$venv"
fi
run_logged pip "$venv/bin/python3" -m pip install --disable-pip-version-check --progress-bar off \
  --constraint requirements/constraints.txt --requirement "requirements/ros-$distro.txt" \
  --requirement requirements/runtime.txt --requirement requirements/onnx.txt --requirement requirements/simulation.txt
run_logged mend-wheels "$venv/bin/python3" scripts/mend_wheels.py
[ "$version" != 3.10 ] || step "Python 3.10 has no ONNX Runtime: the demo runs by \`make demo RUNTIME=torch\`"
touch "$venv/COLCON_IGNORE" "$venv/.complete"
