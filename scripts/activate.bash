# The environment of what `make build` made: source it in bash to use `dysl_vla`, the nodes and rclpy by hand.
#   source scripts/activate.bash                 (DISTRO=jazzy source ...: what `make DISTRO=jazzy build` made)

case ${DISTRO:-kilted} in
  kilted) _suffix= _profile=FASTDDS_DEFAULT_PROFILES_FILE ;;
  *) _suffix=-$DISTRO _profile=FASTRTPS_DEFAULT_PROFILES_FILE ;; # its name before Kilted
esac
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ ! -e "$_root/install$_suffix/local_setup.bash" ]; then
  echo "error: $_root/install$_suffix is missing; run: make build" >&2
  return 1 2>/dev/null || exit 1
fi
# What another ROS installation has left must not mix with the one in .venv.
unset COLCON_PREFIX_PATH COLCON_CURRENT_PREFIX CMAKE_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH
unset ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
export VIRTUAL_ENV=$_root/.venv$_suffix AMENT_PREFIX_PATH=$_root/.venv$_suffix PATH=$_root/.venv$_suffix/bin:$PATH
export ROS_DISTRO=${DISTRO:-kilted} # as the setup.bash of a ROS installation does; wheels do not
source "$_root/install$_suffix/local_setup.bash"
# Without a display; on a machine with a GPU set MUJOCO_GL=egl.
export MUJOCO_GL=${MUJOCO_GL:-osmesa}
# Images of 640x480 at 30 Hz are lost without it; see config/dds.xml.
if [ -z "${FASTDDS_BUILTIN_TRANSPORTS:-}" ]; then
  export "$_profile=${!_profile:-$_root/install$_suffix/dysl_vla_ros/share/dysl_vla_ros/config/dds.xml}"
fi
unset _root _suffix _profile
