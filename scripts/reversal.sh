#!/usr/bin/env bash
# The demo: two small models learn "A is B" from the same text, one with next-token loss alone, one with a latent term
# as well. Which of them can say "B is A"?        bash scripts/reversal.sh [FOLDER] [key=value ...]     (default: runs/demo)
# Ctrl-C saves both; the same command continues from there.
set -euo pipefail
out=runs/demo
case ${1:-} in
  "" | *=*) ;;
  *) out=$1 && shift ;;
esac
source "$(dirname "$0")/setup.sh" report
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_PROGRESS_BARS=1
mkdir -p "$out"
say() { echo "[$((SECONDS / 60)):$(printf %02d $((SECONDS % 60)))] $*" >&2; }
SECONDS=0

# one process and one core per model: two threads of one small model are slower than one
say "training both models; the bar shows the one with the latent term, $out/next_token.log the other"
latentlm train demo objective=next_token training.output_dir="$out/next_token" training.resume_from_checkpoint=true "$@" \
  2>"$out/next_token.log" &
control=$!
trap 'kill $control 2>/dev/null; wait $control || true' EXIT # gives it the time to save
latentlm train demo training.output_dir="$out/reversal" training.resume_from_checkpoint=true "$@"
say "waiting for the other model"
wait $control || { cat "$out/next_token.log" >&2; exit 1; }

say "asking both models all questions, in the order seen and in the other one"
latentlm eval reversal "$out/next_token" >"$out/next_token.txt" &
control=$!
latentlm eval reversal "$out/reversal" >"$out/reversal.txt"
wait $control
say "writing the report"
latentlm report "$out/next_token" "$out/reversal" --out "$out/report.html" >/dev/null
say "done"
python "$(dirname "$0")/demo_summary.py" "$out"
