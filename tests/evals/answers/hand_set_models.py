"""Models whose every logit is known, and tokenizers with a chat template."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from latentlm.data import bpe_tokenizer

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bigram_model(logits: torch.Tensor, positions: int = 64) -> LlamaForCausalLM:
    """A Llama that predicts ``logits[token]`` after a token, whatever comes before it; ``[v v]``.

    Its blocks add nothing, a token's embedding is its own axis, and the final norm makes that axis sqrt(v) long.
    """
    size = len(logits)
    sizes = {
        "hidden_size": size,
        "intermediate_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 2,
    }
    config = LlamaConfig(
        vocab_size=size, max_position_embeddings=positions, tie_word_embeddings=False, rms_norm_eps=1e-12, **sizes
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(logits.T / size**0.5)
    return model


def chat_tokenizer(texts: list[str], vocab_size: int = 280) -> PreTrainedTokenizerFast:
    """Bytes and a few pairs, with marks around each turn."""
    tokenizer = bpe_tokenizer(texts, vocab_size)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def random_model(vocabulary: int, positions: int = 256, sharp: float = 30.0) -> LlamaForCausalLM:
    """A small random Llama whose likeliest token leads clearly, so that rounding does not change what it writes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=positions, tie_word_embeddings=False, eos_token_id=None, **sizes
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(sharp)
        for parameter in model.model.parameters():
            parameter.mul_(4.0) if parameter.dim() > 1 else None
    return model
