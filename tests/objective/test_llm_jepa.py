"""LLM-JEPA on conversations equals three forwards of the published equation, step by step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_chats import CHATS, tokenizer
from tiny_models import build

from latentlm import from_pretrained, get_latent_model
from latentlm.attach.api import as_objective
from latentlm.attach.state import latent_state
from latentlm.components.units import UnitsAlone
from latentlm.config.catalog import read_recipe
from latentlm.data import Collator, conversation, encode_dataset, finders
from latentlm.data.text.chat_turns import headers
from latentlm.objective.index_sets import units_read

STEPS, RATE = 20, 0.05


def recipe(tokens: int) -> dict:
    plain = copy.deepcopy(read_recipe("llm_jepa")["objective"])
    plain["terms"]["views"]["source"]["at"]["predictor_tokens"] = tokens
    return plain | {"monitor_every": 0}


def batch_of(model, template):
    tok = tokenizer(template)
    grains, alone = units_read(latent_state(model).objective.terms.values())
    rows = encode_dataset([conversation(chat) for chat in CHATS], tok, 256, grains=finders(grains)).to_list()
    return Collator(tok.pad_token_id, grains=grains, alone=alone, headers=headers(tok))(rows)


def naive(network, predictor_tokens, template):
    """CE of the answers, and 1 - cosine of each question read alone with its predictor tokens and its answer alone."""
    tok, losses, count, views = tokenizer(template), [], 0, []
    embed = network.get_input_embeddings()
    for chat in CHATS:
        ids, said = [], []
        for number, message in enumerate(chat):  # piece by piece: what is before, what is said, what ends it
            whole = tok.apply_chat_template(chat[: number + 1], tokenize=False)
            before = tok.apply_chat_template(chat[:number], tokenize=False) if number else ""
            start = whole.rindex(message["content"])
            end = start + len(message["content"])
            pieces = (whole[len(before) : start], message["content"], "<|im_end|>", whole[end + len("<|im_end|>") :])
            assert before + "".join(pieces) == whole
            for piece, is_said in zip(pieces, (False, True, True, False), strict=True):
                tokens = tok(piece, add_special_tokens=False)["input_ids"]
                ids += tokens
                said += [is_said and message["role"] == "assistant"] * len(tokens)
            view = tok.apply_chat_template([message], tokenize=False)
            view = view[: view.rindex(message["content"]) + len(message["content"])]
            vectors = embed(torch.tensor([tok(view, add_special_tokens=False)["input_ids"]]))
            if message["role"] == "user":
                vectors = torch.cat([vectors, predictor_tokens[None]], 1)
            if message["role"] in ("user", "assistant"):
                views.append(network.model(inputs_embeds=vectors).last_hidden_state[0, -1])
        logits = network(torch.tensor([ids])).logits[0]
        wanted = torch.tensor([token if use else -100 for token, use in zip(ids, said, strict=True)])[1:]
        losses.append(F.cross_entropy(logits[:-1], wanted, reduction="sum"))
        count += int((wanted >= 0).sum())
    views = torch.stack(views)
    return torch.stack(losses).sum() / count + (1 - F.cosine_similarity(views[::2], views[1::2], dim=-1)).mean()


@pytest.mark.parametrize("template", ["chatml", pytest.param("default_system", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tokens", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_twenty_steps_are_those_of_three_forwards(tokens, template):
    network = build("llama", vocab_size=500, max_position_embeddings=256).double()
    model = get_latent_model(copy.deepcopy(network), recipe(tokens)).double().train()
    words = copy.deepcopy(model.latent.predictor_tokens.data) if tokens else torch.zeros(0, 32, dtype=torch.float64)
    words.requires_grad_()
    own = torch.optim.SGD(model.parameters(), RATE)
    theirs = torch.optim.SGD([*network.parameters(), *([words] if tokens else [])], RATE)
    batch = batch_of(model, template)
    for step in range(STEPS):
        found, expected = model(**batch).loss, naive(network, words, template)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=f"step {step}")
        for loss, optimizer in ((found, own), (expected, theirs)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if tokens:
        assert model.latent.predictor_tokens.equal(words) or torch.allclose(model.latent.predictor_tokens, words)


def test_only_turns_of_the_two_speakers_are_read_alone():
    model = get_latent_model(build("llama", vocab_size=500, max_position_embeddings=256), recipe(1))
    batch = batch_of(model, "chatml")
    turns = [message["role"] for chat in CHATS for message in chat]
    copies = batch["latent"]["segments"].amax(1).sum()
    assert int(copies) == turns.count("user") + turns.count("assistant")
    assert units_read(as_objective(recipe(1)).terms.values())[1] == (UnitsAlone("turn", (1, 2), 1),)


def test_predictor_tokens_are_saved_and_loaded(tmp_path):
    model = get_latent_model(build("llama"), recipe(2))
    model.save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).latent.predictor_tokens.equal(model.latent.predictor_tokens)
    assert not hasattr(get_latent_model(build("llama"), recipe(0)).latent, "predictor_tokens")
