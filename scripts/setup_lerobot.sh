#!/usr/bin/env bash
# Makes .venv-lerobot, once: a plain LeRobot environment, in which nothing of this project is installed, for the tests of
# the families that LeRobot hosts. Usage: scripts/setup_lerobot.sh   (`make setup-lerobot` calls it; LEROBOT_PYTHON=/path
# names the interpreter). Ends with 3 where this machine has no Python that LeRobot runs in.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"
cd "$root"
lerobot=$root/.venv-lerobot
tools=$root/.venv-lerobot-tools # uv alone: it must be neither in .venv nor in an environment like the user's
packages=('lerobot[smolvla,pi,xvla,dataset]>=0.6.1,<0.7' pytest)
no_python=3

# What a folder's mark says: that everything was installed, what, and where the folder was then.
mark() { printf '%s\n' "$lerobot" "${packages[@]}"; }
if [ -x "$lerobot/bin/python" ] && [ "$(cat "$lerobot/.complete" 2>/dev/null)" = "$(mark)" ]; then exit 0; fi

serves() { # a shim of pyenv may be there and say "command not found"
  [ -n "$1" ] && "$1" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

step "Setting up LeRobot (1 of 2): uv ..."
if [ ! -x "$tools/bin/uv" ]; then
  rm -rf "$tools"
  run_logged lerobot-tools "$venv/bin/python3" -m venv "$tools"
  run_logged lerobot-uv "$tools/bin/pip" install --disable-pip-version-check 'uv>=0.13'
fi

python=
if [ -n "${LEROBOT_PYTHON:-}" ]; then
  serves "$LEROBOT_PYTHON" || fail "LEROBOT_PYTHON is '$LEROBOT_PYTHON', and that is no Python 3.12 or 3.13" \
    "name another interpreter"
  python=$LEROBOT_PYTHON
else
  candidates=(python3.12 python3.13)
  for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*; do candidates+=("$folder/bin/python"); done
  for version in 3.12 3.13; do candidates+=("$("$tools/bin/uv" python find --no-python-downloads "$version" 2>/dev/null || true)"); done
  for candidate in "${candidates[@]}"; do
    if serves "$candidate"; then
      python=$candidate
      break
    fi
  done
fi
if [ -z "$python" ]; then
  printf 'error: %s\n' "LeRobot needs Python 3.12 or 3.13, and none was found" >&2
  printf '       %s\n' "install one, or name it: LEROBOT_PYTHON=/path/to/python3.12 make setup-lerobot" >&2
  exit $no_python
fi

step "Setting up LeRobot (2 of 2): .venv-lerobot with $python (5 GB, a minute or two) ..."
rm -rf "$lerobot"
run_logged lerobot-venv "$tools/bin/uv" venv --python "$python" "$lerobot"
VIRTUAL_ENV=$lerobot run_logged lerobot-install "$tools/bin/uv" pip install --compile-bytecode "${packages[@]}"
touch "$lerobot/COLCON_IGNORE" "$tools/COLCON_IGNORE"
mark >"$lerobot/.complete"
