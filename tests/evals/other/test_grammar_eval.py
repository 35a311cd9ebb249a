"""A grammar's evaluation: a model that knows the grammar has excess 0, and planted levels are read off."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latentlm_evals.grammar import Options, evaluate, run, scoring, table
from tiny_models import build
from torch import nn

from latentlm.data import Grammar, word_tokenizer

GRAMMAR = Grammar(depth=2, symbols=4, rules=3, sentences=50, held_out=50)
TOKENIZER = word_tokenizer(document.text for document in GRAMMAR.documents() + GRAMMAR.held_out_documents())


class Oracle(nn.Module):
    """Knows the grammar: its logits are the exact probabilities of the next token."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, input_ids, use_cache):
        symbols = np.array([GRAMMAR.read(text) for text in TOKENIZER.batch_decode(input_ids)])
        state = torch.eye(4)[torch.tensor(symbols)]
        for layer in self.layers:
            state = layer(state)
        logits = torch.full((*symbols.shape, len(TOKENIZER)), -1e9)
        for place, symbol in itertools.product(range(1, GRAMMAR.length), range(4)):
            other = symbols.copy()
            other[:, place] = symbol
            (token,) = TOKENIZER("abcd"[symbol], add_special_tokens=False)["input_ids"]
            with np.errstate(divide="ignore", invalid="ignore"):  # what cannot be has no probability
                logits[:, place - 1, token] = -torch.tensor(GRAMMAR.surprise(other)[:, place]).float()
        return SimpleNamespace(logits=logits.nan_to_num(-1e9).clamp(min=-1e9))


def test_a_model_that_knows_the_grammar_is_at_its_entropy(monkeypatch):
    oracle = Oracle()
    monkeypatch.setattr(scoring, "find_backbone", lambda model: SimpleNamespace(layers=list(model.layers)))
    result = evaluate(oracle, TOKENIZER, GRAMMAR, Options(batch_size=16))
    scores = result.to_lm_eval()["results"]
    assert scores["grammar/excess"]["nats,none"] == pytest.approx(0, abs=1e-5)
    assert [scores[f"grammar/position/{place}"]["nats,none"] for place in (2, 3, 4)] == pytest.approx([0] * 3, abs=1e-5)
    assert 0 < scores["grammar/level/2/chosen"]["acc,none"] <= 1


def test_planted_levels_are_read_off_at_the_right_depth():
    torch.manual_seed(0)
    symbols = torch.randint(4, (200, 4)).numpy()
    noise, told = torch.randn(200, 8, 6).double(), torch.zeros(200, 8, 6).double()
    told[:, 1::2, :4] = torch.eye(4).double()[torch.tensor(symbols)]  # at the last token of each
    tasks = scoring._level([noise, told + 0.1 * noise, noise], symbols, 2, 1, Options())
    acc = {"/".join(key.parts): task.value("acc") for key, task in tasks.items()}
    assert acc["level/1/1"] == acc["level/1/chosen"] == 1
    assert acc["level/1/0"] < 0.5
    assert tasks[scoring.level_key(1, None)].value("depth") == 1


def test_a_checkpoint_is_scored_and_shown(tmp_path):
    model = build("llama", vocab_size=len(TOKENIZER))
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    result = run(str(tmp_path), Options(data=GRAMMAR, out=str(tmp_path / "out.json")))
    scores = json.loads((tmp_path / "out.json").read_text())["results"]
    assert scores["grammar/excess"]["nats,none"] > 0
    assert {key for key in scores if key.startswith("grammar/level/1")} == {
        f"grammar/level/1/{where}" for where in (*range(5), "chosen")
    }
    assert [column.header for column in table({"a": result})[0].columns][1] == "loss above entropy"
    with pytest.raises(ValueError, match="its data is not a grammar; name one"):
        run(str(tmp_path), Options())
