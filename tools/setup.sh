#!/usr/bin/env bash
# Makes the virtual environment and installs the pinned requirements: tools/setup.sh FOLDER
set -euo pipefail
venv=$1

# for other versions some of the pinned packages have no wheel
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

if [ ! -x "$venv/bin/python" ]; then
  python=${PYTHON:-}
  if [ -z "$python" ]; then
    for candidate in python3.13 python3.12 python3.11 python3.14 python3 python; do
      if fits "$candidate"; then python=$candidate; break; fi
    done
  fi
  if [ -z "$python" ] || ! fits "$python"; then
    echo "The book needs Python 3.11, 3.12, 3.13 or 3.14, and ${python:-this machine} is or has none of them." >&2
    echo "Install one and try again, or name it: make PYTHON=/path/to/python3.12" >&2
    exit 1
  fi
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "$python lacks the modules venv and ensurepip (on Debian and Ubuntu: apt install python3-venv)." >&2
    exit 1
  fi
  "$python" -m venv "$venv"
fi

pip=("$venv/bin/python" -m pip install --disable-pip-version-check --quiet
  --no-compile) # Python compiles what is imported; all of it would take a minute
if [ -n "${TORCH_INDEX:-}" ]; then
  echo "Installing torch and torchvision from the given index ..."
  "${pip[@]}" --index-url "$TORCH_INDEX" $(grep -E '^(torch|torchvision)==' requirements.txt | cut -d' ' -f1)
fi
echo "Installing the pinned requirements into $venv (some gigabytes with torch's GPU build; a few minutes) ..."
"${pip[@]}" -r requirements.txt
