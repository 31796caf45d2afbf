# Shared by the scripts beside this file: one line a step on the screen, the whole output in log/make/.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
logs=$root/log/make
mkdir -p "$logs"
touch "$root/log/COLCON_IGNORE"

step() { printf '%s\n' "$*"; }

fail() { # the message; further arguments are further lines
  printf 'error: %s\n' "$1" >&2
  shift
  if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
  exit 1
}

# The distribution that is built with: DISTRO (not ROS_DISTRO, which a sourced shell exports). Each has an environment and
# folders of its own.
distro=${DISTRO:-kilted}
case $distro in
  kilted) suffix= distro_name="ROS 2 Kilted" ;;
  jazzy) suffix=-jazzy distro_name="ROS 2 Jazzy" ;;
  *) fail "DISTRO is '$distro'; there are kilted and jazzy" "for example: make demo DISTRO=jazzy" ;;
esac
venv=$root/.venv$suffix

# run_logged LOG COMMAND...: shows the newest line of output on a terminal; on failure the end of it anywhere.
run_logged() {
  local log=$logs/$1.log status=0 line
  shift
  if [ -t 1 ]; then
    "$@" 2>&1 | tee "$log" | while IFS= read -r line; do printf '\r\033[K  %.100s' "$line"; done || status=$?
    printf '\r\033[K'
  else
    "$@" >"$log" 2>&1 || status=$?
  fi
  if [ "$status" != 0 ]; then
    tail -n 30 "$log" >&2
    fail "this failed: $*" "the whole output is in ${log#"$root"/}"
  fi
}

# What a sourced ROS installation leaves in the environment must not mix with the virtual environment's own ROS.
forget_other_ros() {
  unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH COLCON_CURRENT_PREFIX PYTHONPATH LD_LIBRARY_PATH
  unset ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
}
