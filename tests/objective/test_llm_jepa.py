"""llm_jepa in one packed forward is the objective of three forwards, as one would write it."""

import torch
import torch.nn.functional as F
from tiny_models import build

from latentlm import get_latent_model
from latentlm.config.catalog import recipe_names
from latentlm.data import Collator, Document, encode, word_tokenizer
from latentlm.experiment.recipe import load_recipe

TEXTS = ["The quiet lantern is called Vela Dorn .", "Everybody knows that Kip Sol is the eager miller ."]
SPANS = [[(4, 17), (28, 37)], [(21, 28), (36, 48)]]


def test_one_forward_equals_three():
    recipe = load_recipe("llm_jepa")
    tokenizer = word_tokenizer(TEXTS)
    documents = [Document(text, spans) for text, spans in zip(TEXTS, SPANS, strict=True)]
    examples = [
        encode(d, tokenizer, 64, recipe.sets, source_context=recipe.data.span_pairs.source_context) for d in documents
    ]
    batch = Collator(tokenizer.pad_token_id, recipe.sets)([example.to_row() for example in examples])
    options = {"vocab_size": max(97, len(tokenizer))}
    plain, ours = build("llama", **options).train(), build("llama", **options)
    loss = get_latent_model(ours, recipe.objective).train()(**batch).loss

    data, tokens, distances = torch.zeros(()), 0, []
    for document, example in zip(documents, examples, strict=True):
        ids = torch.tensor([example.input_ids])
        (pair,) = example.span_pairs  # the first view to the second, and nothing else
        assert not pair.isolated_source
        second = tokenizer(document.text[slice(*document.spans[1])])["input_ids"]
        logits = plain(ids).logits[0, :-1]
        data, tokens = data + F.cross_entropy(logits, ids[0, 1:], reduction="sum"), tokens + ids.shape[1] - 1
        first = plain.model(ids[:, : pair.source_last + 1]).last_hidden_state[:, -1]
        distances.append(1 - F.cosine_similarity(first, plain.model(torch.tensor([second])).last_hidden_state[:, -1]))
    naive = data / tokens + torch.cat(distances).mean()
    torch.testing.assert_close(loss, naive, rtol=1e-5, atol=0)
    loss.backward()
    naive.backward()
    own = dict(ours.named_parameters())
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(own[name].grad, weight.grad, rtol=1e-3, atol=1e-6)


def test_only_the_second_view_is_read_twice():
    recipe = load_recipe("llm_jepa")
    tokenizer = word_tokenizer(TEXTS)
    example = encode(
        Document(TEXTS[0], SPANS[0]), tokenizer, 64, recipe.sets, source_context=recipe.data.span_pairs.source_context
    )
    assert "llm_jepa" in recipe_names()
    twice = Collator(tokenizer.pad_token_id, recipe.sets)([example.to_row()])["input_ids"].shape[1]
    assert twice == len(example.input_ids) + len(tokenizer("Vela Dorn")["input_ids"])
