"""Tasks for lm-eval: `lm_eval ... --include_path "$(latentlm lm-eval-path)" --tasks latentlm_reversal`."""
