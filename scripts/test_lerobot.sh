#!/usr/bin/env bash
# The tests of the families that LeRobot hosts, in one process in .venv-lerobot, with this package's sources and msgpack
# linked beside it: nothing is installed there. Usage: scripts/test_lerobot.sh [PYTEST ARGUMENTS]   (`make test-lerobot`)
# SLOW=1 takes in those marked slow.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"
status=0
scripts/setup_lerobot.sh || status=$?
if [ "$status" = 3 ] && [ -z "${CI:-}" ]; then
  step "skipped: test/lerobot, because there is no Python for LeRobot"
  exit 0
fi
[ "$status" = 0 ] || exit "$status"
[ -n "${SLOW:-}" ] && chosen=() || chosen=(-m "not slow")
beside=$(mktemp -d)
trap 'rm -rf "$beside"' EXIT
ln -s "$root/dysl_vla_ros" "$beside/dysl_vla_ros"
ln -s "$("$venv/bin/python3" -c 'import msgpack, os; print(os.path.dirname(msgpack.__file__))')" "$beside/msgpack"
# many small models on few cores are quickest with one thread each
env -u PYTHONHOME OMP_NUM_THREADS=1 PYTHONPATH="$beside" HF_HUB_OFFLINE=1 MSGPACK_PUREPYTHON=1 \
  .venv-lerobot/bin/python -m pytest --confcutdir=test/lerobot --rootdir=test/lerobot -c test/lerobot/pytest.ini \
  "${chosen[@]}" test/lerobot "$@"
