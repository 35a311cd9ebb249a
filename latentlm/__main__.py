"""``python -m latentlm`` and ``accelerate launch -m latentlm``."""

from latentlm.cli import main

main()
