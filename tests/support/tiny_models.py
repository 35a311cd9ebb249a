"""Tiny random causal LMs of many architectures: vocabulary 97, width 32, 4 blocks, dropout off, float32."""

from dataclasses import dataclass, field

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB, DIM, NUM_LAYERS = 97, 32, 4

# Passed to every config class as far as it knows the key.
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "intermediate_size": 64,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Tiny:
    """What one architecture needs beyond the common values, and how its own tuple of states relates to its blocks.

    Attributes:
        extra: config values.
        shifted: `hidden_states[i]` is the output of block i, the input of the first block is missing.
        has_norm: a final norm follows the last block.
        has_state: blocks carry a recurrent state along the row, beside or instead of attention.
    """

    extra: dict = field(default_factory=dict)
    shifted: bool = False
    has_norm: bool = True
    has_state: bool = False


GPT = {"n_embd": DIM, "n_layer": NUM_LAYERS, "n_head": 4, "n_positions": 128}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 2,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
LATENT_ATTENTION = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
}
SLIDING = ["sliding_attention", "full_attention"] * 2
LINEAR = ["linear_attention", "full_attention"] * 2
BERT = {"is_decoder": True}

TINY = {
    "apertus": Tiny(),
    "bamba": Tiny(MAMBA | {"attn_layer_indices": [1, 3], "use_mamba_kernels": False}, has_state=True),
    "bart": Tiny(
        BERT | {"d_model": DIM, "decoder_layers": NUM_LAYERS, "decoder_attention_heads": 4, "decoder_ffn_dim": 64},
        has_norm=False,
    ),
    "bert": Tiny(BERT, has_norm=False),
    "bloom": Tiny({"n_layer": NUM_LAYERS, "n_head": 4}),
    "cohere": Tiny({"logit_scale": 0.25}),
    "cohere2": Tiny({"sliding_window": 8, "layer_types": SLIDING}),
    "deepseek_v2": Tiny(LATENT_ATTENTION),
    "deepseek_v3": Tiny(LATENT_ATTENTION | {"n_group": 2, "topk_group": 1}),
    "electra": Tiny(BERT | {"embedding_size": 16}, has_norm=False),
    "exaone4": Tiny({"sliding_window": 8, "layer_types": SLIDING}),
    "falcon": Tiny(),
    "falcon_h1": Tiny(MAMBA | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5}, has_state=True),
    "falcon_mamba": Tiny({"state_size": 8}, shifted=True, has_state=True),
    "gemma": Tiny(),
    "gemma2": Tiny({"final_logit_softcapping": 0.05, "sliding_window": 8, "layer_types": SLIDING}),
    "gemma3_text": Tiny({"sliding_window": 8, "layer_types": SLIDING}),
    "glm4": Tiny(),
    "gpt2": Tiny(GPT),
    "gpt_neo": Tiny({"num_layers": NUM_LAYERS, "num_heads": 4, "attention_types": [[["global", "local"], 2]]}),
    "gpt_neox": Tiny(),
    "gpt_oss": Tiny(LOCAL_EXPERTS | {"sliding_window": 8, "layer_types": SLIDING}),
    "gptj": Tiny(GPT | {"rotary_dim": 4}),
    "granite": Tiny({"logits_scaling": 8.0}),
    "granitemoehybrid": Tiny(
        MAMBA
        | {
            "mamba_n_groups": 1,
            "num_local_experts": 0,
            "shared_intermediate_size": 64,
            "layer_types": ["mamba", "attention"] * 2,
        },
        has_state=True,
    ),
    "hyperclovax": Tiny({"logits_scaling": 0.125}),
    "jamba": Tiny(
        {
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "mamba_d_state": 8,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
        has_state=True,
    ),
    "lfm2": Tiny({"layer_types": ["conv", "full_attention"] * 2}, has_state=True),
    "llama": Tiny(),
    "llama4_text": Tiny({"num_local_experts": 2, "intermediate_size_mlp": 64}),
    "longcat_flash": Tiny(
        LATENT_ATTENTION
        | {
            "num_layers": NUM_LAYERS,
            "num_hidden_layers": 2 * NUM_LAYERS,
            "ffn_hidden_size": 64,
            "expert_ffn_hidden_size": 32,
            "moe_topk": 2,
            "zero_expert_num": 2,
        }
    ),
    "mamba": Tiny({"state_size": 8}, shifted=True, has_state=True),
    "mamba2": Tiny(
        {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "expand": 2, "chunk_size": 16},
        shifted=True,
        has_state=True,
    ),
    "minicpm3": Tiny(LATENT_ATTENTION | {"dim_model_base": 8}),
    "mistral": Tiny({"sliding_window": 8}),
    "mixtral": Tiny(LOCAL_EXPERTS),
    "modernbert-decoder": Tiny({"local_attention": 8, "layer_types": SLIDING}),
    "mpt": Tiny({"d_model": DIM, "n_layers": NUM_LAYERS, "n_heads": 4, "max_seq_len": 128}),
    "nanochat": Tiny(),
    "nemotron_h": Tiny(
        {
            "layers_block_type": ["mamba", "attention", "mamba", "mlp"],
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 2,
            "ssm_state_size": 8,
            "chunk_size": 16,
            "use_mamba_kernels": False,
        },
        has_state=True,
    ),
    "olmo": Tiny(),
    "olmo2": Tiny(),
    "olmo3": Tiny({"sliding_window": 8, "layer_types": SLIDING}),
    "openai-gpt": Tiny(GPT, has_norm=False),
    "opt": Tiny({"ffn_dim": 64, "word_embed_proj_dim": DIM}),
    "phi": Tiny(),
    "phi3": Tiny(),
    "qwen2": Tiny(),
    "qwen3": Tiny(),
    "qwen3_5_text": Tiny(DELTA | {"layer_types": LINEAR}, has_state=True),
    "qwen3_moe": Tiny(EXPERTS),
    "qwen3_next": Tiny(
        DELTA | EXPERTS | {"shared_expert_intermediate_size": 32, "layer_types": LINEAR}, has_state=True
    ),
    "recurrent_gemma": Tiny(
        {
            "lru_width": 32,
            "attention_window_size": 16,
            "block_types": ["recurrent", "attention"],
            "logits_soft_cap": 0.05,
        },
        has_state=True,
    ),
    "roberta-prelayernorm": Tiny(BERT),
    "rwkv": Tiny({"attention_hidden_size": DIM}, shifted=True, has_state=True),
    "seed_oss": Tiny(),
    "smollm3": Tiny(),
    "stablelm": Tiny(),
    "starcoder2": Tiny(),
    "xlstm": Tiny({"num_heads": 4, "output_logit_soft_cap": 0.05, "use_cache": False}, has_state=True),
    "xlm-roberta": Tiny(BERT, has_norm=False),
    "zamba2": Tiny(
        {
            "mamba_d_state": 8,
            "mamba_headdim": 8,
            "mamba_ngroups": 2,
            "n_mamba_heads": 8,
            "chunk_size": 16,
            "layers_block_type": ["mamba", "hybrid"] * 2,
            "hybrid_layer_ids": [1, 3],
            "attention_head_dim": 16,
            "attention_hidden_size": 64,
            "use_mamba_kernels": False,
        },
        has_state=True,
    ),
}
NAMES = tuple(TINY)
# one of each design; the others differ in details and are slow
DESIGNS = {
    "bart", "bloom", "deepseek_v3", "gemma3_text", "gpt2", "gpt_oss", "jamba", "llama", "mamba", "mixtral",
    "modernbert-decoder", "qwen3_next", "rwkv", "zamba2",
}  # fmt: skip
FAMILIES = [pytest.param(name, marks=() if name in DESIGNS else pytest.mark.slow) for name in NAMES]


def build(name: str, seed: int = 0, **overrides) -> PreTrainedModel:
    """A random model of the architecture `name`, in evaluation mode; `overrides` are config values."""
    if name not in CONFIG_MAPPING:
        pytest.skip(f"this release of transformers does not know {name}")
    blank = AutoConfig.for_model(name)
    known = {key: COMMON[key] for key in COMMON if hasattr(blank, key) and not _is_property(blank, key)}
    config = AutoConfig.for_model(name, **known | TINY[name].extra | overrides)
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith(("pdrop", "dropout_prob"))) and isinstance(value, float):
            setattr(config, key, 0.0)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # fresh norms are all alike, and biases zero: tell them apart
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def _is_property(config: object, key: str) -> bool:
    return isinstance(getattr(type(config), key, None), property)


def ids(rows: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Random ids without special ones."""
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
