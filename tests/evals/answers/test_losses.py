"""Losses of labelled tokens: each row alone in float64, and in windows that count every token once."""

import pytest
import torch
from hand_set_models import chat_tokenizer, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from latentlm_evals.models import losses
from latentlm_evals.models.losses import IGNORE, Labelled, token_losses, windows

TOKENIZER = chat_tokenizer(["some text"])


def rows():
    draw = torch.Generator().manual_seed(1)
    found = []
    for length, first in ((5, 1), (30, 12), (2, 1), (17, 16), (30, 1), (9, 4)):
        ids = torch.randint(len(TOKENIZER), (length,), generator=draw).tolist()
        found.append(Labelled(ids, [IGNORE] * first + ids[first:]))
    found.append(Labelled([3, 4, 5, 6], [IGNORE, 4, IGNORE, 6]))
    return found


def naive(model, row):
    with torch.no_grad():
        logp = model(torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
    return -sum(logp[p - 1, label].item() for p, label in enumerate(row.labels) if p and label != IGNORE)


@pytest.mark.parametrize("budget", [2**28, 1000])
@pytest.mark.parametrize("most_rows", [1, 3, 64])
def test_rows_have_the_loss_that_they_have_alone(monkeypatch, budget, most_rows):
    monkeypatch.setattr(losses, "MOST_LOGITS", budget)
    model = random_model(len(TOKENIZER), sharp=3.0)
    found = token_losses(model, TOKENIZER, rows(), most_rows=most_rows)
    assert found == pytest.approx([naive(model, row) for row in rows()], rel=1e-5)


def test_a_network_that_has_diverged_is_one_line():
    model = random_model(len(TOKENIZER))
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="are NaN: the weights have diverged"):
        token_losses(model, TOKENIZER, rows())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 50), st.integers(2, 12))
def test_windows_count_each_token_once_after_half_a_window(length, size):
    row = Labelled(list(range(length)), [IGNORE, *range(1, length)])
    pieces = windows(row, size)
    seen = [label for piece in pieces for label in piece.labels[1:] if label != IGNORE]
    assert seen == list(range(1, length))
    for number, piece in enumerate(pieces):
        assert len(piece.ids) <= size
        assert [a for a, b in zip(piece.ids, piece.labels, strict=True) if b != IGNORE] == [
            b for b in piece.labels if b != IGNORE
        ]
        if number:
            first = next(place for place, label in enumerate(piece.labels) if label != IGNORE)
            assert first >= size // 2
    assert sum(piece.count for piece in pieces) == row.count
