#!/usr/bin/env bash
# The fast tests on the lowest and the newest releases that pyproject.toml admits:  scripts/check.sh floors [lowest | newest]
# Each set has its environment in .venv-floors (LATENTLM_FLOORS names another place), several GB where torch comes with
# CUDA. Golden trajectories skip themselves on versions that they were not made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
place=${LATENTLM_FLOORS:-$root/.venv-floors}
tools=(beartype hypothesis jsonschema jaxtyping psutil pytest tensorboard pytest-xdist pyyaml rich safetensors scikit-learn sentencex "setuptools>=77" typer pillow)
tests=(tests/attach tests/backbones tests/components tests/data tests/monitor tests/objective tests/losses tests/trainers tests/export tests/experiment/test_recipes.py tests/experiment/test_train.py)

for name in ${*:-lowest newest}; do
  pins=scripts/floors/$name.txt
  [ -f "$pins" ] || { echo "floors: $name: no $pins; one of: lowest, newest" >&2; exit 2; }
  python=$place/$name/bin/python
  [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$place/$name"
  if ! cmp -s "$pins" "$place/$name/pins.txt"; then
    echo "floors: installing $pins in $place/$name" >&2
    "$python" -m pip install --quiet --disable-pip-version-check -r "$pins" "${tools[@]}"
    # comes with CUDA builds, and without a GPU TRL's kernels would be started in vain
    command -v nvidia-smi >/dev/null 2>&1 || "$python" -m pip uninstall --quiet --yes triton 2>/dev/null
    cp "$pins" "$place/$name/pins.txt"
  fi
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
  echo "floors: $name: $(grep -v '^#' "$pins" | tr '\n' ' ')"
  # other releases warn of other things
  "$python" -m pytest -n "${WORKERS:-2}" --dist worksteal --durations=10 -W default --disable-warnings "${tests[@]}"
done
