#!/usr/bin/env bash
# Make .venv with this project in it and put it on PATH:  source scripts/setup.sh EXTRAS   (EXTRAS: report, dev, ...)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1:-report}
venv=${LATENTLM_VENV:-$root/.venv}
python=${PYTHON:-python3}

# set up again only when what is asked for has changed
stamp="$venv/.latentlm-$extras"
if ! cmp -s "$root/pyproject.toml" "$stamp"; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "latentlm needs Python 3.10 or newer; name one: PYTHON=python3.12 $0" >&2
    exit 2
  }
  echo "setting up $venv with [$extras]" >&2
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  # torch first: left to the other packages it would be the newest CUDA build, several GB, even without a GPU
  if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    if command -v nvidia-smi >/dev/null 2>&1; then
      "${pip[@]}" "torch>=2.13"
    else
      "${pip[@]}" --retries 0 --timeout 8 --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 2>/dev/null ||
        "${pip[@]}" torch==2.13.0
    fi
  fi
  "${pip[@]}" -e "$root[$extras]"
  cp "$root/pyproject.toml" "$stamp"
fi
export PATH="$venv/bin:$PATH"
