#!/usr/bin/env bash
# Builds the package with colcon into build/ and install/, against the ROS 2 in .venv. `make build` calls it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"
venv=$root/.venv

step "Building dysl_vla_ros with colcon (half a minute at first) ..."
forget_other_ros
export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
rm -rf install # a module deleted from the sources must not live on there
run_logged colcon colcon --log-base log build --base-paths . --packages-select dysl_vla_ros \
  --event-handlers console_direct+ --cmake-args "-DPython3_EXECUTABLE=$venv/bin/python3"
touch install/.complete
