#!/usr/bin/env bash
# The tests, in two parts that run at the same time: those with a ROS node one after the other, because they hold
# deadlines, and mostly wait; those without one in as many processes as there are cores, at the lowest priority there is,
# so that they take what the others leave. Usage: scripts/test.sh [PYTEST ARGUMENTS]; SLOW=1 takes in those marked slow,
# PART=nodes or PART=others runs one part alone. `make test` and `make test-all` call it.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"
[ -n "${SLOW:-}" ] && chosen=() || chosen=(-m "not slow") # -m in the arguments comes after it and so in its place
none=5 # what pytest ends with where no test was chosen
part=${PART:-}

with_nodes=(pytest "${chosen[@]}" --part nodes "$@")
others=(pytest "${chosen[@]}" --part others --numprocesses auto --dist loadfile "$@")

with=$none without=$none
if [ "$part" = others ]; then
  step "Tests without a ROS node ..."
  "${others[@]}"
  without=$?
elif [ "$part" = nodes ]; then
  step "Tests with real nodes over DDS, one after the other ..."
  "${with_nodes[@]}"
  with=$?
else
  step "Tests with real nodes over DDS, one after the other; those without a node beside them, shown afterwards ..."
  log=$(mktemp)
  (
    # of this process, and so of the tests; where the idle class is not allowed, the next best
    chrt --idle --pid 0 "$BASHPID" 2>/dev/null || renice -n 19 -p "$BASHPID" >/dev/null
    exec "${others[@]}" >"$log" 2>&1
  ) &
  beside=$!
  trap 'kill $beside 2>/dev/null; rm -f "$log"' EXIT
  "${with_nodes[@]}"
  with=$?
  step "Tests without a ROS node ..."
  wait $beside
  without=$?
  cat "$log"
fi

[ $without = $none ] && [ $with = $none ] && fail "no test was chosen" "see what was given: ARGS='$*'"
for status in $without $with; do
  [ $status = 0 ] || [ $status = $none ] || exit $status
done
