"""Flash attention keeps packed segments apart in one flat row only; needs a GPU and flash-attn."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from latentlm import get_latent_model
from latentlm.attach.leak_checks import mixes_segments
from latentlm.data import Collator

pytestmark = pytest.mark.gpu
EXAMPLES = [{"input_ids": list(range(5, 5 + n)), "labels": list(range(5, 5 + n)), "pairs": []} for n in (9, 7, 9, 7)]


@pytest.mark.parametrize(("packing", "row_length", "mixes"), [("padding_free", None, False), ("packed", 16, True)])
def test_flash_attention_isolates_a_padding_free_row(packing, row_length, mixes):
    pytest.importorskip("flash_attn", reason="needs the extra 'flash'")
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    config._attn_implementation = "flash_attention_2"
    model = get_latent_model(LlamaForCausalLM(config).to("cuda", torch.bfloat16), {"terms": {}})
    assert mixes_segments(model, Collator(0, (), packing, row_length)(EXAMPLES)) is mixes
