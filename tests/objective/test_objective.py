"""The sum: masks, packing, exact means, weights, and terms without anything to say."""

import copy

import pytest
import torch
from tiny_models import build, ids
from torch import distributed
from toy_view import llama, objective, packed, report, terms, view

from latentlm.attach.state import latent_state
from latentlm.losses import InfoNce, Mse
from latentlm.objective.objective import means, total
from latentlm.objective.predict import PredictTerm
from latentlm.types import StepContext, TermLoss

EVERY = """
heads: {wide: {kind: projector, dim: 6}, narrow: {kind: projector, dim: 6, num_layers: 1}}
terms:
  online:
    kind: predict
    source: {depth: block 2}
    target: {kind: online, tap: {depth: block 3, at: {kind: next, horizon: 2}}}
    loss: mse
  leaky:
    kind: predict
    source: {depth: block 2, head: wide, norm: final}
    target: {kind: online, tap: {depth: block 3, at: next, head: narrow}, stop_grad: false}
    predictor: mlp
    loss: info_nce
  dynamics:
    kind: predict
    source: {depth: 1, norm: final}
    target: {kind: online, tap: {depth: 1, norm: final, at: {kind: next, horizon: 3}}}
    predictor: dynamics
    decode_with: lm_head
    loss: kl
  code: {kind: predict, source: {depth: block 2, at: ends}, target: {kind: token_embeddings, ids: ids}, loss: info_nce}
  spans:
    kind: predict
    source: {depth: block 2, at: spans, pool: mean, norm: final}
    target: {kind: online, tap: {depth: block 3, at: spans, pool: last}, stop_grad: false}
    predictor: identity
    loss: cosine
  pairs:
    kind: predict
    source: {depth: block 2, at: spans}
    target: {kind: online, tap: {depth: block 3, at: spans, norm: final}, stop_grad: false}
    predictor: swiglu
    loss: smooth_l1
  words: {kind: predict, source: {depth: block 2}, target: tokens, loss: next_token, decode_with: norm_and_lm_head}
  round: {kind: regularize, source: {depth: block 2, head: wide}, sample_axis: positions,
          loss: {kind: sigreg, num_slices: 4}}
  apart: {kind: regularize, source: {depth: block 2, at: spans}, sample_axis: examples,
          loss: {kind: sigreg, num_slices: 4}}
"""
SETS = {
    "ends": [[[1], [4], [-1]], [[2], [-1], [-1]]],
    "ids": [[[5, 6, -1], [7, -1, -1], [9, 9, 9]], [[8, 2, 3], [-1, -1, -1], [4, -1, -1]]],
    "spans": [[[0, 1], [3, -1], [-1, 4]], [[1, 2], [-1, -1], [-1, -1]]],
}
SEGMENTS = [[0, 0, 1, 1, 1, -1], [0, 0, 0, -1, -1, -1]]


def result(built, seen, masked=False):
    """Value and gradient of all terms together, in weights and in the states of real positions."""
    built.zero_grad()
    seen.norm.zero_grad()
    reports = report(built, seen)
    total(reports).backward()
    real = seen.segments >= 0
    grads = [state.grad[real] for state in seen.states.values() if state.grad is not None]
    grads += [p.grad for p in (*built.parameters(), *seen.norm.parameters())]
    outside = [state.grad[~real] for state in seen.states.values() if state.grad is not None]
    return {n: r.value.detach() for n, r in reports.items()}, grads, outside


LEFT = [[-1, 0, 0, 1, 1, 1], [-1, -1, -1, 0, 0, 0]]


def moved(name, steps=(1, 3)):
    """A set of `SEGMENTS` for the rows of `LEFT`."""
    rows = torch.tensor(SETS[name])
    return rows if name == "ids" else torch.where(rows >= 0, rows + torch.tensor(steps)[:, None, None], -1)


@pytest.mark.parametrize(("rows", "sets"), [(SEGMENTS, SETS), (LEFT, {name: moved(name) for name in SETS})])
def test_masked_values_reach_neither_loss_nor_gradient(rows, sets):
    built, results = terms(EVERY), []
    for poison in (0.0, torch.nan):
        seen = view(rows, sets)
        padding = seen.segments < 0
        seen.inputs[padding] = 1  # an id that nothing else has
        with torch.no_grad():
            for state in seen.states.values():
                state[padding] = poison
            seen.inputs[~padding] = seen.inputs[~padding].clamp(min=2)
            seen.embed.weight[1] = poison  # the id of the padding
        results.append(result(built, seen))
    (values, grads, outside), (poisoned, poisoned_grads, poisoned_outside) = results
    assert values == poisoned
    assert all(value.isfinite() for value in values.values())
    for one, other in zip(grads, poisoned_grads, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)
    assert all((grad == 0).all() for grad in (*outside, *poisoned_outside))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_the_batch_changes_nothing(side):
    built, plain = terms(EVERY), view(SEGMENTS, SETS)
    extra = 2 if side == "left" else 0

    def pad(x, value):
        fill = torch.full((x.shape[0], 2, *x.shape[2:]), value, dtype=x.dtype)
        return torch.cat([fill, x] if side == "left" else [x, fill], 1)

    sets = {name: moved(name, (extra, extra)) for name in SETS}
    wide = view(pad(plain.segments, -1), sets, labels=pad(plain.labels, -100), inputs=pad(plain.inputs, 3))
    wide.embed, wide.norm, wide.readout = copy.deepcopy(plain.embed), copy.deepcopy(plain.norm), plain.readout
    wide.states = {k: pad(s.detach(), 9.0).requires_grad_() for k, s in plain.states.items()}
    values, grads, _ = result(built, plain)
    grads = [grad.clone() for grad in grads]
    padded_values, padded_grads, _ = result(built, wide)
    assert values == padded_values
    for one, other in zip(grads, padded_grads, strict=True):
        torch.testing.assert_close(one, other)


NEXT_LATENT = """
lm_weight: 0.0
terms:
  a:
    kind: predict
    source: {depth: 1/2}
    target: {kind: online, tap: {depth: 3/4, at: {kind: next, horizon: 2}}}
    loss: mse
  b:
    kind: predict
    source: {depth: 1, at: last}
    target: {kind: online, tap: {depth: 0, at: last}}
    loss: cosine
    weight: 0.5
"""


def test_a_network_padded_on_either_side_learns_the_same():
    tokens, grads, values = ids(2, 6), [], []
    for left, right in ((0, 0), (3, 0), (0, 4)):
        model = llama(NEXT_LATENT)
        batch = {"input_ids": torch.nn.functional.pad(tokens, (left, right), value=5)}
        batch["attention_mask"] = torch.nn.functional.pad(torch.ones_like(tokens), (left, right))
        out = model(**batch)
        out.latent_loss.backward()
        values.append(out.latent_loss.detach())
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    for value, grad in zip(values[1:], grads[1:], strict=True):
        torch.testing.assert_close(value, values[0])
        torch.testing.assert_close(grad, grads[0], rtol=1e-4, atol=1e-6)


def test_documents_of_a_row_never_meet():
    model = llama(NEXT_LATENT.replace("mse", "info_nce"))
    batch, found = packed([3, 4, 5, 6], [7, 8, 9], [10, 11], pad=2), {}
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: found.update(e=out))
    alone = latent_state(model).model.latent.terms
    seen = []
    model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(**batch)
    guess, goal = alone["a"].pairs(StepContext(seen[0].view))
    assert len(guess) == (3 + 2) + (2 + 1) + 1  # pairs at distance 1 and 2 inside each document
    (grad,) = torch.autograd.grad(Mse()(guess, goal)[5:8].sum(), found["e"])  # those of the second document
    assert (grad[0, :4] == 0).all()
    assert (grad[0, 7:] == 0).all()
    assert grad[0, 4:6].abs().sum() > 0


def test_packed_documents_give_the_loss_of_single_rows():
    documents = [[3, 4, 5, 6], [7, 8, 9], [10, 11]]
    model = llama(NEXT_LATENT)
    together = model(**packed(*documents, pad=3)).latent_loss
    built, sums = latent_state(model).model.latent.terms, {}
    for document in documents:
        seen = []
        handle = model.latent.register_forward_hook(lambda m, a, out: seen.append(out))  # noqa: B023
        model(**packed(document))
        handle.remove()
        for name, each in seen[0].items():
            have = sums.get(name, (0, 0))
            sums[name] = have[0] + each.sum, have[1] + each.count
    want = sum(built[n].spec.weight * s / c for n, (s, c) in sums.items())
    torch.testing.assert_close(together, want)


def test_sums_and_counts_equal_a_naive_loop():
    built, seen = terms(EVERY), view(SEGMENTS, SETS)
    reports = report(built, seen)
    weight, bias = built["online"].predictor.network.parameters()
    errors = []
    for b, row in enumerate(SEGMENTS):
        for t, segment in enumerate(row):
            guess = weight @ seen.states[2][b, t] + bias
            for u in (t + 1, t + 2):
                if segment >= 0 and u < len(row) and row[u] == segment:
                    errors.append((guess - seen.states[3][b, u]).square().mean())
    assert reports["online"].count == len(errors)
    torch.testing.assert_close(reports["online"].sum, torch.stack(errors).sum())
    torch.testing.assert_close(reports["online"].value, torch.stack(errors).mean())
    codes, goals = built["code"].pairs(StepContext(seen, {}, {}))
    assert reports["code"].count == len(codes) == 3  # a pair needs both: an end and an id
    torch.testing.assert_close(reports["code"].sum, InfoNce()(codes, goals).sum())


def test_only_anchors_of_pairs_reach_a_predictor():
    built, rows = terms(EVERY), {}
    for name, term in ((name, term) for name, term in built.items() if isinstance(term, PredictTerm)):
        term.predictor.register_forward_hook(lambda module, args, out, name=name: rows.update({name: len(args[0])}))
    report(built, view(SEGMENTS, SETS))
    assert rows == {"online": 5, "leaky": 5, "dynamics": 5, "code": 3, "spans": 4, "pairs": 4, "words": 8}


@pytest.mark.parametrize("rows", [SEGMENTS, [[-1] * 6] * 2, [[0] * 6, [-1] * 6]])
def test_counts_known_ahead_are_those_of_the_forward(rows):
    built = terms(EVERY)
    seen = view(rows, SETS)
    if rows != SEGMENTS:
        seen.sets = {name: torch.full_like(value, -1) for name, value in seen.sets.items()}
    found = {name: float(each.count) for name, each in report(built, seen).items()}
    assert found == {name: float(count) for name, count in built.counts(seen).items()}


def test_terms_without_a_pair_are_zero_and_connected():
    text = EVERY.replace("info_nce", "{kind: info_nce, skip_duplicates: true}")
    built, seen = terms(text), view([[-1] * 4] * 2, {n: [[[-1, -1]]] * 2 for n in SETS} | {"ends": [[[-1]]] * 2})
    reports = report(built, seen)
    assert all(each.sum == 0 and each.count == 0 for each in reports.values())
    total(reports).backward()
    for weight in built.parameters():
        assert weight.grad is not None
        assert (weight.grad == 0).all()


def test_the_sum_of_micro_batches_is_the_mean_of_all():
    torch.manual_seed(0)
    values = [torch.randn(n) for n in (3, 1, 5)]
    reports = [{"a": TermLoss(v.sum(), torch.tensor(float(len(v))), 0.3)} for v in values]
    counts = {"a": torch.tensor(9.0)}
    torch.testing.assert_close(sum(total(r, 1.0, counts) for r in reports), 0.3 * torch.cat(values).mean())
    torch.testing.assert_close(total(reports[0], 0.5), 0.3 * 0.5 * values[0].mean())
    for each, count in ((reports[1], None), (reports[2], counts)):
        share = means(each, 0.25, count)["a"]
        torch.testing.assert_close(each["a"].weight * each["a"].sum * share, total(each, 0.25, count))


def test_weight_zero_is_plain_next_token_bit_for_bit():
    batch, grads = {"input_ids": ids(2, 8), "labels": ids(2, 8)}, []
    off = (
        NEXT_LATENT.replace("lm_weight: 0.0", "lm_weight: 1.0")
        .replace("0.5", "0.0")
        .replace("mse", "mse\n    weight: 0.0")
    )
    for model in (llama(off), build("llama").train()):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        grads.append([loss.detach(), *(p.grad for n, p in model.named_parameters() if "latent" not in n)])
    assert all(map(torch.equal, *grads))


def test_the_data_has_a_weight_too():
    batch = {"input_ids": ids(2, 8), "labels": ids(2, 8)}
    out = llama(NEXT_LATENT.replace("lm_weight: 0.0", "lm_weight: 0.25"))(**batch)
    torch.testing.assert_close(out.loss, 0.25 * out.data_loss + out.latent_loss)


def test_names_that_cannot_be():
    term = "{kind: regularize, source: {depth: 1}, loss: sigreg, sample_axis: examples}"
    for name in ("data", "monitor", "a.b", "a/b", "values", "type", "''", "a b"):
        with pytest.raises(ValueError, match="cannot name a term or head"):
            objective(f"terms: {{{name}: {term}}}")
    with pytest.raises(ValueError, match="cannot name a term or head"):
        objective("heads: {keys: {kind: projector, dim: 3}}")
    with pytest.raises(ValueError, match="no head 'b' in the objective"):
        terms(
            "{heads: {a: {kind: projector, dim: 3}}, terms: {x: " + term.replace("depth: 1", "depth: 1, head: b") + "}}"
        )


ROUND = (
    "terms: {a: {kind: regularize, source: {depth: block 2}, loss: {kind: sigreg, num_slices: 4}, "
    "sample_axis: positions}}"
)


def spread_on_rank(rows: list) -> list:
    built, seen = terms(ROUND), view(rows[distributed.get_rank()])
    loss = total(report(built, seen), 1.0, {"a": torch.tensor(1.0)})  # one value over all ranks
    loss.backward()
    return [float(loss.detach()), seen.states[2].grad.tolist()]


def test_a_rank_without_samples_does_not_count_a_statistic_twice(pool):
    (value, grad), (nothing, zero) = pool.run(spread_on_rank, [[[0, 0, 0, 0]], [[-1, -1, -1, -1]]])
    seen = view([[0, 0, 0, 0]])
    loss = report(terms(ROUND), seen)["a"].sum
    loss.backward()
    assert (value, nothing) == (pytest.approx(float(loss.detach())), 0)
    torch.testing.assert_close(torch.tensor(grad, dtype=torch.float64), seen.states[2].grad)
    assert not torch.tensor(zero).any()
