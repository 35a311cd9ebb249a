"""What a second view of the same text costs: packed as segments of one forward, or read in forwards of its own.

    python scripts/bench/second_view.py [--shape small | smollm2] [--batch 32 --length 64 --rounds 15 --threads 1]

Each comparison first checks that all its arms have the same loss (relative 1e-5). Baseline: the plain Hugging Face
step on the documents alone, without any second view. The column FLOPs counts the tokens that each way reads, padding
included; logits are counted where a label follows, except in arms that make them all.
"""

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from interleaved import Arm, Loss, compare, forward_flops, options, plain_config, plain_model, same_loss, start, twin
from torch import Tensor, nn

from latentlm import get_latent_model
from latentlm.components.token_embeddings import signed_permutations
from latentlm.config.catalog import read_recipe
from latentlm.data import Collator, encode, word_tokenizer
from latentlm.data.synthetic.facts import Facts

TEMPERATURE = 0.1


def main() -> None:
    args = start(options(__doc__))
    reversal(args)
    for share in (2, 4):
        two_views(args, args.length // share)


def reversal(args: argparse.Namespace) -> None:
    """reversal: spans that must not see their partner, in the same rows or as rows of a second batch."""
    examples, pad = documents(args)
    packed = Collator(pad, ("source_last", "target_ids"), "packed", args.length)(examples)
    alone, whole = lone_rows(examples, pad), without_lone(examples)
    plain = Collator(pad, (), "packed", args.length)(whole)
    plain.pop("latent")
    first = Collator(pad, ("source_last", "target_ids"), "packed", args.length)(whole)
    base = partial(plain_model, args.shape)
    objective = read_recipe("reversal")["objective"]
    config = plain_config(args.shape)
    once = 3 * forward_flops(config, *plain["input_ids"].shape)
    second = 3 * forward_flops(config, *alone["input_ids"].shape, head=False)
    packed_flops = forward_flops(config, *packed["input_ids"].shape, head=False)
    packed_flops += 2 * config.hidden_size * config.vocab_size * int((packed["labels"][:, 1:] != -100).sum())
    arms = [
        Arm("plain, documents alone", lambda model: (lambda: model(**plain).loss, []), 1.0),
        Arm(
            "one forward, spans packed",
            lambda model: attached(model, objective, packed),
            3 * packed_flops / once,
        ),
        Arm("two forwards", lambda model: second_forward(model, first, alone), 1 + second / once),
    ]
    shapes = [tuple(each["input_ids"].shape) for each in (plain, packed, alone)]
    real = int((packed["latent"]["segments"] >= 0).sum())
    title = f"reversal: documents {shapes[0]}, packed {shapes[1]} ({real} real tokens), lone spans {shapes[2]}"
    same_loss(arms[1:], base, args)
    compare(title, arms, base, args)


def two_views(args: argparse.Namespace, second: int) -> None:
    """LLM-JEPA: the end of view A predicts the end of view B by cosine, gradient into both; B must not see A."""
    views = View(args, second)
    base = partial(plain_model, args.shape)
    config = plain_config(args.shape)
    once = 3 * forward_flops(config, args.batch, args.length)
    body = partial(forward_flops, config, args.batch, head=False)
    lone_a, lone_b = 3 * body(args.length - second), 3 * body(second)
    packed = once - 3 * body(args.length) + 3 * body(args.length + second)  # no logits for B
    arms = [
        Arm("plain, documents alone", lambda model: (lambda: model(**views.document).loss, []), 1.0),
        Arm(
            "one forward, B packed",
            lambda model: attached(model, views.objective, views.packed),
            packed / once,
        ),
        Arm("two forwards: AB, B", lambda model: (partial(views.two, model), []), 1 + lone_b / once),
        Arm("three forwards: AB, A, B", lambda model: (partial(views.three, model), []), 1 + (lone_a + lone_b) / once),
        Arm("three rows padded to AB", lambda model: (partial(views.padded, model), []), 3.0),
    ]
    same_loss(arms[1:], base, args)
    compare(f"two views: A of {args.length - second} tokens and B of {second}", arms, base, args)


class View:
    """Two views as one document, as a document with B packed behind it, each by itself, and as padded rows."""

    def __init__(self, args: argparse.Namespace, second: int):
        first, rows = args.length - second, args.batch
        vocab = plain_config(args.shape).vocab_size
        ids = torch.randint(0, vocab, (rows, args.length), generator=torch.Generator().manual_seed(1))
        self.a, self.b = ids[:, :first], ids[:, first:]
        self.document = {"input_ids": ids, "labels": ids.clone()}
        end = torch.ones(rows, 1, 1, dtype=torch.long)
        self.packed = {
            "input_ids": torch.cat([ids, self.b], 1),
            "labels": torch.cat([ids, torch.full_like(self.b, -100)], 1),
            "position_ids": torch.cat([torch.arange(args.length), torch.arange(second)]).expand(rows, -1),
            "latent": {
                "segments": torch.cat([torch.zeros(args.length), torch.ones(second)]).long().expand(rows, -1),
                "a_end": end * (first - 1),
                "b_end": end * (args.length + second - 1),
            },
        }
        pads = [F.pad(each, (0, args.length - each.shape[1])) for each in (self.a, self.b)]
        nothing = torch.full_like(ids, -100)
        self.rows = {
            "input_ids": torch.cat([ids, *pads]),
            "labels": torch.cat([ids, nothing, nothing]),
            "attention_mask": torch.arange(args.length)
            < torch.tensor([args.length, first, second]).repeat_interleave(rows)[:, None],
        }
        self.objective = {"monitor_every": 0, "terms": {"views": {
            "kind": "predict", "predictor": {"kind": "identity"},
            "source": {"depth": 1, "norm": "final", "at": "a_end"},
            "target": {"kind": "online", "tap": {"depth": 1, "norm": "final", "at": "b_end"}, "stop_grad": False},
            "loss": {"kind": "cosine"},
        }}}  # fmt: skip

    def two(self, model: Any) -> Tensor:
        """A is read at its end inside the document, where it cannot see B."""
        output = model(**self.document, output_hidden_states=True)
        end_a = output.hidden_states[-1][:, self.a.shape[1] - 1]  # after the final norm, as transformers records it
        return output.loss + distance(end_a, model.model(self.b).last_hidden_state[:, -1])

    def three(self, model: Any) -> Tensor:
        """Each view by itself, and the document."""
        end_a, end_b = (model.model(ids).last_hidden_state[:, -1] for ids in (self.a, self.b))
        return model(**self.document).loss + distance(end_a, end_b)

    def padded(self, model: Any) -> Tensor:
        """One batch of three times the rows, as LLM-JEPA's own code makes it: every view padded to the document."""
        output = model(**self.rows, output_hidden_states=True)
        _, a, b = output.hidden_states[-1].chunk(3)
        return output.loss + distance(a[:, self.a.shape[1] - 1], b[:, self.b.shape[1] - 1])


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(a, b, dim=-1)).mean()


def attached(model: Any, objective: dict, batch: dict) -> tuple[Loss, list[nn.Parameter]]:
    get_latent_model(model, objective)
    return lambda: model(**batch).loss, list(model.latent.parameters())


def documents(args: argparse.Namespace) -> tuple[list[dict], int]:
    """As many facts as fit into the rows with their lone spans; ids of a word tokenizer, whatever the shape."""
    found = Facts().documents()
    tokenizer = word_tokenizer([document.text for document in found])
    collate = Collator(tokenizer.pad_token_id, ("source_last", "target_ids"), "packed", args.length)
    examples: list[dict] = []
    for document in found:
        more = [*examples, encode(document, tokenizer, args.length, ("source_last", "target_ids")).to_row()]
        if len(collate(more)["input_ids"]) > args.batch:
            break
        examples = more
    return examples, tokenizer.pad_token_id


def without_lone(examples: list[dict]) -> list[dict]:
    return [
        {**example, "span_pairs": [pair for pair in example["span_pairs"] if not pair["isolated_source"]]}
        for example in examples
    ]


def lone_rows(examples: list[dict], pad: int) -> dict[str, Tensor]:
    """One right-padded row for each lone span, with the ids of its other span."""
    pairs = [pair for example in examples for pair in example["span_pairs"] if pair["isolated_source"]]
    rows = [torch.tensor(pair["isolated_source"]) for pair in pairs]
    others = [torch.tensor(pair["target_ids"]) for pair in pairs]
    ones = [torch.ones_like(row) for row in rows]
    pack = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return {
        "input_ids": pack(rows, padding_value=pad),
        "attention_mask": pack(ones),
        "target_ids": pack(others, padding_value=-1),
    }


def second_forward(model: Any, first: dict, alone: dict) -> tuple[Loss, list[nn.Parameter]]:
    """The reversal objective as one would write it: documents, then lone spans without the output head."""
    dim = model.config.hidden_size
    # the attached model's own depth and first weights, so that the losses can be compared
    other = get_latent_model(twin(model), read_recipe("reversal")["objective"])
    ((_, term),) = other.latent.terms.items()
    depth, head = term.spec.source.blocks[-1], term.predictor.network
    latent = first["latent"]
    inputs = {name: value for name, value in first.items() if name != "latent"}
    ends, ids = latent["source_last"].flatten(), latent["target_ids"].flatten(0, 1)
    rows = torch.arange(len(latent["source_last"])).repeat_interleave(latent["source_last"].shape[1])
    rows, ids, ends = rows[ends >= 0], ids[ends >= 0], ends[ends >= 0]
    lengths = alone["attention_mask"].sum(1)
    width = max(ids.shape[1], alone["target_ids"].shape[1])
    goals = torch.cat([F.pad(each, (0, width - each.shape[1]), value=-1) for each in (ids, alone["target_ids"])])
    places, signs = signed_permutations(width, dim, seed=0)

    def loss() -> Tensor:
        output = model(**inputs, output_hidden_states=True, use_cache=False)
        lone = model.model(alone["input_ids"], attention_mask=alone["attention_mask"], output_hidden_states=True)
        read = (
            output.hidden_states[depth][rows, ends],
            lone.hidden_states[depth][torch.arange(len(lengths)), lengths - 1],
        )
        guess = F.normalize(head(torch.cat(read)), dim=-1)
        with torch.no_grad():
            embedded = model.get_input_embeddings()(goals.clamp(min=0))
            embedded = embedded.gather(-1, places.expand_as(embedded)) * signs
            code = F.normalize((embedded * (goals >= 0)[..., None]).sum(1), dim=-1)
            alike = (code @ code.T > 1 - 1e-6).fill_diagonal_(False)
        logits = (guess @ code.T / TEMPERATURE).masked_fill(alike, -torch.inf)
        return output.loss + F.cross_entropy(logits, torch.arange(len(code)))

    return loss, list(head.parameters())


if __name__ == "__main__":
    main()
