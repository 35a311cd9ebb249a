#!/usr/bin/env bash
# The main job: next-token prediction alone against reversal, same seed, data and steps, on invented facts; ends
# with a table and a report.   scripts/reversal.sh [FOLDER] [key=value ...]    (default: runs/demo)
# Ctrl-C saves both runs; the same command goes on from there.
set -euo pipefail
out=runs/demo
case ${1:-} in
  "" | *=*) ;;
  *) out=$1 && shift ;;
esac
source "$(dirname "$0")/setup.sh" report
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$out"

# one process an arm: two threads of one small model are slower than one
latentlm train next_token training.output_dir="$out/next_token" training.resume_from_checkpoint=true "$@" 2>"$out/next_token.log" &
control=$!
trap 'kill $control 2>/dev/null; wait $control || true' EXIT # gives it the time to save
latentlm train reversal training.output_dir="$out/reversal" training.resume_from_checkpoint=true "$@"
wait $control || { cat "$out/next_token.log" >&2; exit 1; }
latentlm eval reversal "$out/next_token" "$out/reversal"
latentlm report "$out/next_token" "$out/reversal" --out "$out/report.html"
