#!/usr/bin/env bash
# The one command for humans, hooks and CI:  scripts/check.sh [fix | lint | types | test | all | floors]
set -euo pipefail
cd "$(dirname "$0")/.."

unset PYTHONDONTWRITEBYTECODE  # every process would compile everything again
# busy-waiting threads of several processes on few cores cost more than they give
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false

if [ "${1:-}" = floors ]; then
  source scripts/floors/run.sh "${@:2}"
  exit
fi
source scripts/setup.sh dev

lint() { ruff format --check . && ruff check .; }
types() { pyright latentlm evals/latentlm_evals; }
tests() { pytest -n "${WORKERS:-2}" --dist worksteal --durations=10 "$@"; }

case "${1:-test}" in
  fix) ruff format . && ruff check --fix . ;;
  lint) lint ;;
  types) types ;;
  test) tests "${@:2}" ;;
  all) lint && types && tests -m "not gpu" --jaxtyping-packages=latentlm,latentlm_evals,beartype.beartype ;;
  *) echo "usage: scripts/check.sh [fix | lint | types | test | all | floors]" >&2; exit 2 ;;
esac
