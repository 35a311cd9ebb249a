#!/usr/bin/env bash
# Make .venv with this project in it; sourced, also put it on PATH:  source scripts/setup.sh [EXTRAS]   (report, dev, ...)
# LATENTLM_VENV names another place than .venv, PYTHON another interpreter than python3.
if [ "${BASH_SOURCE[0]}" != "$0" ]; then
  # in a shell of its own, so that a failure does not end the one that asked
  bash "${BASH_SOURCE[0]}" "$@" || return
  PATH=${LATENTLM_VENV:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv}/bin:$PATH
  export PATH
  return
fi

set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
extras=${1:-report}
venv=${LATENTLM_VENV:-$root/.venv}
python=${PYTHON:-python3}

# set up again only when what is asked for has changed
stamp="$venv/.latentlm-$extras"
cmp -s "$root/pyproject.toml" "$stamp" && exit

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "latentlm needs Python 3.10 or newer; name one: PYTHON=python3.12" >&2
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
