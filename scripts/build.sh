#!/usr/bin/env bash
# Builds the package with colcon into build/ and install/, against the ROS 2 in .venv; with -jazzy behind each name where
# DISTRO=jazzy. `make build` calls it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"

step "Building dysl_vla_ros with colcon (half a minute at first) ..."
forget_other_ros
export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
rm -rf "install$suffix" # a module deleted from the sources must not live on there
run_logged colcon colcon --log-base log build --build-base "build$suffix" --install-base "install$suffix" --base-paths . --packages-select dysl_vla_ros \
  --event-handlers console_direct+ --cmake-args "-DPython3_EXECUTABLE=$venv/bin/python3"
touch "install$suffix/.complete" "install$suffix/COLCON_IGNORE" "build$suffix/COLCON_IGNORE"
