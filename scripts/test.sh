#!/usr/bin/env bash
# The tests, in two parts: those without a ROS node in as many processes as there are cores, then those with one, alone,
# because they hold deadlines. Usage: scripts/test.sh [PYTEST ARGUMENTS]; SLOW=1 takes in those marked slow, PART=nodes runs
# those with a node alone.
# `make test` and `make test-all` call it.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"
[ -n "${SLOW:-}" ] && chosen=() || chosen=(-m "not slow") # -m in the arguments comes after it and so in its place
none=5 # what pytest ends with where no test was chosen

without=$none
if [ "${PART:-}" != nodes ]; then
  step "Tests without a ROS node ..."
  pytest "${chosen[@]}" --part others --numprocesses auto --dist loadfile "$@"
  without=$?
fi
step "Tests with real nodes over DDS, one after the other ..."
pytest "${chosen[@]}" --part nodes "$@"
with=$?

[ $without = $none ] && [ $with = $none ] && fail "no test was chosen" "see what was given: ARGS='$*'"
for status in $without $with; do
  [ $status = 0 ] || [ $status = $none ] || exit $status
done
