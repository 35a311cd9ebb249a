"""The causal section on networks whose weights are set by hand, so that it is known what an answer hangs on."""

import pytest
import torch
from latentlm_evals.coherence.interchange import SCORES, SWAPPED_IN
from latentlm_evals.coherence.options import Options
from latentlm_evals.coherence.runner import measure
from latentlm_evals.coherence.stimuli import ASK_CATEGORY, CATEGORIES, CONTEXTS, NOUNS, mentions
from latentlm_evals.models.interventions import Lens
from latentlm_evals.models.text_encoder import TextEncoder
from transformers import LlamaConfig, LlamaForCausalLM

from latentlm.data import word_tokenizer

DIM = 56
# a noun's number and category; the words of a context; these seen from the noun; a place for each context; the answer
FEATURES, WORDS, SEEN, ANSWER, OWN = range(0, 7), range(7, 10), range(10, 13), range(34, 41), range(41, DIM)
PLACES = [range(13 + 7 * k, 20 + 7 * k) for k in range(3)]
MARKS = {"subject": ("The", "These"), "object": ("We", "My"), "question": ("Did", "Do")}
OPTIONS = Options(sections=("causal",), nouns=6, pairs=8, components=40, random_init=False)


def copies(layer, pairs, gain):
    """Attention that adds the mean over all tokens of some dimensions to others."""
    with torch.no_grad():
        layer.self_attn.v_proj.weight.copy_(torch.eye(DIM))
        for source, target in pairs:
            layer.self_attn.o_proj.weight[list(target), list(source)] = gain


def network(kind):
    """Answers are read off a noun's features in one place (shared), or in a place for each context (fractured).

    In the third kind (bypass) later words have read the noun before the depth at which it is exchanged.
    """
    texts = [f"{row.text} that is are{ASK_CATEGORY} {' '.join(CATEGORIES)}" for row in mentions()]
    tokenizer = word_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=21,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model, ids = LlamaForCausalLM(config), tokenizer.get_vocab()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            for weight in (*layer.self_attn.parameters(), *layer.mlp.parameters()):
                weight.zero_()
        words, head = model.model.embed_tokens.weight.zero_(), model.lm_head.weight.zero_()
        words[:, list(OWN)] = 0.2 * torch.randn(len(words), len(OWN), generator=draw)  # every word is one of its own
        for category, nouns in enumerate(NOUNS.values()):
            for noun in nouns.split():
                for number, word in enumerate((noun, f"{noun}s")):
                    words[ids[word], 0] = 2 * number - 1
                    words[ids[word], 1 + category] = 1
        for place, context in enumerate(MARKS):
            for word in MARKS[context]:
                words[ids[word], WORDS[place]] = 1
        head[ids["is"], ANSWER[0]], head[ids["are"], ANSWER[0]] = -5, 5
        for place, category in enumerate(CATEGORIES):
            head[ids[category], ANSWER[1 + place]] = 5
        first, second = model.model.layers
        if kind == "shared":
            copies(second, [(FEATURES, ANSWER)], 4)
        elif kind == "bypass":
            copies(first, [(FEATURES, ANSWER)], 4)
        else:
            copies(first, [(WORDS, SEEN)], 8)
            for place, target in enumerate(PLACES):  # what is seen of a context opens the gate of its place
                units = list(range(7 * place, 7 * place + 7))
                first.mlp.gate_proj.weight[units, SEEN[place]] = 2
                first.mlp.up_proj.weight[units, list(FEATURES)] = 1
                first.mlp.down_proj.weight[list(target), units] = 0.1
            copies(second, [(target, ANSWER) for target in PLACES], 4)
    return Lens(TextEncoder(kind, model, tokenizer), batch_size=64)


@pytest.fixture(scope="module")
def found():
    return {kind: measure(network(kind), [1], OPTIONS).scores for kind in ("shared", "fractured", "bypass")}


@pytest.mark.slow
def test_the_networks_answer_right(found):
    assert [CONTEXTS[k].name for k in SWAPPED_IN] == list(MARKS)
    for kind in found:
        assert found[kind]["causal/category@1"]["answered"] == 1, kind
        assert found[kind]["causal/number@1"]["answered"] == 1, kind
        assert set(SCORES) <= set(found[kind]["causal/number@1"])


@pytest.mark.parametrize("concept", ["category", "number"])
def test_one_place_is_one_handle_for_all_contexts(found, concept):
    row = found["shared"][f"causal/{concept}@1"]
    assert row["cause"] > 0.95
    assert row["cause_across"] > 0.95
    assert row["isolate"] > 0.95
    assert row["disentangle"] == pytest.approx((row["cause"] + row["isolate"]) / 2)
    assert abs(row["gap"]) < 0.1
    assert row["cause_shuffled"] < 0.4
    assert row["cause_whole"] == 1
    assert row["isolate_whole"] < 0.2  # the pairs differ in both concepts, and all of the noun is exchanged
    # erased, the concept's own answers are lost and the other's are not; a random subspace costs both a little
    assert row["amnesic"] > 5
    assert abs(row["amnesic_other"] + row["amnesic_other_control"]) < 0.05 * row["amnesic"]
    assert row["amnesic_control"] < 0.3 * row["amnesic"]


@pytest.mark.parametrize("concept", ["category", "number"])
def test_a_place_for_each_context_has_a_handle_in_its_own_context_only(found, concept):
    row = found["fractured"][f"causal/{concept}@1"]
    assert row["cause"] > 0.9
    assert row["cause_across"] < 0.2
    assert row["isolate_across"] > 0.8


def test_readable_but_read_before_is_no_cause(found):
    row = found["bypass"]["causal/category@1"]
    assert row["cause"] == row["cause_across"] == row["cause_whole"] == 0
    assert row["gap"] > 0.9
    assert row["isolate"] == 1
    assert abs(row["amnesic"]) < 1e-4


def test_what_is_readable_everywhere_need_not_be_used_in_one_place(found):
    """The noun keeps its own dimensions in all three networks: CRS is 1, and only the exchange tells them apart."""
    options = Options(sections=("stability",), nouns=6, components=40, random_init=False)
    for kind in found:
        assert measure(network(kind), [1], options).scores["stability/number@1"]["crs"] > 0.95, kind
    across = [found[kind]["causal/category@1"]["cause_across"] for kind in ("shared", "fractured", "bypass")]
    assert across[0] > 0.9 > 0.2 > across[1] > across[2] == 0
