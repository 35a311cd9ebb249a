"""Published methods on a tiny ViT against naive float64 loops written from their equations."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tiny_vits import PATCHES, attach, images, vit

from latentlm.attach.state import latent_state

NARROW = "predictor: {kind: transformer, num_layers: 1}"


def doubled(batch: dict) -> dict:
    return batch | {"pixel_values": batch["pixel_values"].double()}


def run(model, batch):
    """The loss, and the context that the terms have read."""
    seen = []
    hook = model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    loss = model(**doubled(batch)).loss
    hook.remove()
    return loss, seen[0]


def waves(place, wide):
    each = wide // 4
    out = []
    for coordinate in place:
        angles = [float(torch.tensor(10_000.0) ** -(i / each)) * float(coordinate) for i in range(each)]
        out += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return torch.tensor(out, dtype=torch.float64)


def decoded(stem, values, sources, targets):
    """The narrow transformer of one anchor, token by token."""
    grid = lambda index: divmod(int(index) - 1, 4)  # noqa: E731
    tokens = [stem.into(v) + waves(grid(i), stem.wide) for v, i in zip(values, sources, strict=True)]
    tokens += [stem.token + waves(grid(i), stem.wide) for i in targets]
    state = torch.stack(tokens)[None]
    for block in stem.blocks:
        state = block(state)
    return stem.norm(state[0, len(sources) :])


@pytest.mark.parametrize("fewer", [0, 5])
def test_mae(fewer):
    """Also where an image has fewer patches to predict than others: no guess looks at those that are not there."""
    text = (
        "terms: {mae: {kind: predict, source: {depth: 1, norm: final, at: visible}, "
        f"target: {{kind: pixels, at: masked}}, {NARROW}, loss: mse}}}}"
    )
    model, batch = attach(text, dtype=torch.float64), images(kept=4)
    latent, total, count = batch["latent"], 0.0, 0
    latent["masked"][1, 0, latent["masked"].shape[-1] - fewer :] = -1
    loss, context = run(model, batch)
    stem = model.latent.terms["mae"].predictor
    for row in range(3):
        visible, masked = latent["visible"][row, 0], latent["masked"][row, 0]
        masked = masked[masked >= 0]
        states = model.layernorm(context.view.states[4][row][visible])
        guess = stem.out(decoded(stem, states, visible, masked))
        for g, place in zip(guess, masked, strict=True):
            y, x = divmod(int(place) - 1, 4)
            patch = doubled(batch)["pixel_values"][row, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            patch = patch.permute(1, 2, 0).flatten()
            wanted = (patch - patch.mean()) / (patch.var() + 1e-2).sqrt()
            total, count = total + (g - wanted).square().mean(), count + 1
    torch.testing.assert_close(loss, total / count, rtol=1e-6, atol=1e-9)  # the coordinates' waves are float32


def test_i_jepa_and_its_levels():
    text = (
        "terms: {ladder: {kind: levels, sources: [1/2, 1], targets: [1/2, 1], align: masked_patches, "
        "shared_trunk: true, "
        f"weights: [[0.5, 0.5], [0.2, 0.8]], target: {{teacher: ema, momentum: 0.9}}, {NARROW}, loss: smooth_l1}}}}"
    )
    model, batch = attach(text, dtype=torch.float64), images(kept=4, blocks=2)
    loss, context = run(model, batch)
    predictors, total = {n: t.predictor for n, t in model.latent.terms.items()}, 0.0
    assert sorted(predictors) == [f"ladder/{s}_to_{t}" for s in (2, 4) for t in (2, 4)]
    slow = context.teacher_views["ema"].states
    for source, row_weights in ((2, {2: 0.5, 4: 0.5}), (4, {2: 0.2, 4: 0.8})):
        stem = predictors[f"ladder/{source}_to_2"]
        for target, weight in row_weights.items():
            out = stem.out if target == 2 else predictors[f"ladder/{source}_to_4"]
            values = []
            for row in range(3):
                visible = batch["latent"]["visible"][row, 0]
                for block in batch["latent"]["masked"][row]:
                    guess = out(decoded(stem, context.view.states[source][row][visible], visible, block))
                    goal = F.layer_norm(slow[target][row][block], (32,))
                    values += [F.smooth_l1_loss(g, t) for g, t in zip(guess, goal, strict=True)]
            total = total + 0.5 * weight * torch.stack(values).mean()
    torch.testing.assert_close(loss, total, rtol=1e-6, atol=1e-9)


def test_byol_with_a_slow_copy_of_the_projector():
    text = """
    heads: {project: {kind: projector, dim: 8, norm: batch}}
    terms:
      byol:
        kind: predict
        source: {depth: 1, norm: final, at: cls_1, head: project}
        target: {kind: ema, tap: {depth: 1, norm: final, at: cls_2, head: project}, momentum: 0.5, normalize: none}
        predictor: linear
        loss: cosine
    """
    model = attach(text, dtype=torch.float64)
    batch = images(rows=4, views=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    before = {n: w.detach().clone() for n, w in model.named_parameters() if ".predictor." not in n}
    loss, _ = run(model, batch)
    loss.backward()
    optimizer.step()
    mixed = {n: 0.5 * before[n] + 0.5 * w.detach() for n, w in model.named_parameters() if n in before}
    loss, context = run(model, batch)

    def project(values, weights=None):
        head = model.latent.terms.heads["project"]
        own = {n.removeprefix("latent.terms.heads.project."): w for n, w in (weights or {}).items() if ".project." in n}
        return torch.func.functional_call(head, own, (values,))

    here = model.layernorm(context.view.states[4])
    there = F.layer_norm(
        context.teacher_views["ema"].states[4], (32,), mixed["layernorm.weight"], mixed["layernorm.bias"],
        model.layernorm.eps,
    )  # fmt: skip
    first, second = [0, 1 + PATCHES], [1 + PATCHES, 0]
    guess = model.latent.terms["byol"].predictor(project(here[:, first].flatten(0, 1))[:, None])[:, 0]
    goal = project(there[:, second].flatten(0, 1), mixed)
    naive = torch.stack([1 - g @ t / g.norm() / t.norm() for g, t in zip(guess, goal, strict=True)]).mean()
    torch.testing.assert_close(loss, naive)
    assert not torch.allclose(goal, project(there[:, second].flatten(0, 1)))
    assert latent_state(model).model.latent.step == 1


def test_dino_over_several_steps():
    """Two global and a local crop; every student crop against the global ones that it is not itself."""
    text = """
    heads: {prototypes: {kind: prototypes, dim: 7, hidden: 12, num_layers: 2, bottleneck: 6}}
    terms:
      crops:
        kind: predict
        source: {depth: 1, norm: final, at: cls_1, head: prototypes}
        target:
          kind: ema
          tap: {depth: 1, norm: final, at: cls_2, head: prototypes}
          momentum: 0.5
          final_momentum: 1.0
          normalize: none
          assign: {kind: center, temperature: {start: 0.2, end: 0.4, steps: 2}, momentum: 0.9}
        predictor: identity
        loss: {kind: soft_cross_entropy, temperature: 0.1}
    """
    model, batch = attach(text, dtype=torch.float64), images(rows=3, views=3)
    first = [place * (1 + PATCHES) for place in range(3)]
    crops = [(student, teacher) for teacher in range(2) for student in range(3) if student != teacher]
    for name, side in (("cls_1", 0), ("cls_2", 1)):
        batch["latent"][name] = torch.tensor([[first[pair[side]]] for pair in crops]).expand(3, -1, 1)
    batch["latent"]["taught"] = torch.arange(2)
    latent_state(model).steps.total = 4
    head = model.latent.terms.heads["prototypes"]
    slow, slow_head, center = vit().double(), copy.deepcopy(head), torch.zeros(7, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(3):
        with torch.no_grad():
            pixels = doubled(batch)["pixel_values"]
            taught = [slow_head(slow(pixels[crop::3]).last_hidden_state[:, 0]) for crop in range(2)]  # normed
        loss, context = run(model, batch)
        states = model.layernorm(context.view.states[4][:, first])
        values, temperature = [], [0.2, 0.3, 0.4][step]
        for student, teacher in crops:
            for s, t in zip(head(states[:, student]), taught[teacher], strict=True):
                wanted, guess = ((t - center) / temperature).exp(), (s / 0.1).exp()
                values.append(-((wanted / wanted.sum()) * (guess / guess.sum()).log()).sum())
        torch.testing.assert_close(loss, torch.stack(values).mean(), rtol=1e-7, atol=1e-9)  # its count is float32
        center = 0.9 * center + 0.1 * torch.cat(taught).mean(0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        share = 1 - 0.5 * (1 + math.cos(math.pi * (step + 1) / 4)) / 2
        own = dict(model.named_parameters())
        for copies, prefix in ((slow, ""), (slow_head, "latent.terms.heads.prototypes.")):
            for name, weight in copies.named_parameters():
                weight.data = share * weight.data + (1 - share) * own[prefix + name].data


def test_lejepa():
    text = """
    heads: {project: {kind: projector, dim: 8}}
    terms:
      together: {kind: regularize, source: &t {depth: 1, at: cls, head: project}, loss: invariance, sample_axis:
      examples,
                 weight: 0.95}
      apart: {kind: regularize, source: *t, loss: {kind: sigreg, num_slices: 4}, sample_axis: examples, weight: 0.05}
    """
    model, batch = attach(text, dtype=torch.float64), images(rows=5, views=2)
    loss, context = run(model, batch)
    heads = model.latent.terms
    z = heads.heads["project"](context.view.states[4][:, [0, 1 + PATCHES]])  # b v d
    middle = z.mean(1, keepdim=True)
    together = sum((z[i, v] - middle[i, 0]).square().mean() for i in range(5) for v in range(2)) / 10
    apart = torch.stack([heads["apart"].spec.loss(z[:, v], 0) for v in range(2)]).mean()
    torch.testing.assert_close(loss, 0.95 * together + 0.05 * apart)


def test_data2vec_target_is_the_mean_of_normed_depths_and_v_jepa_reads_them_side_by_side():
    text = (
        "terms: {a: {kind: predict, source: {depth: [1/4, 1], at: visible, fuse: concat}, "
        "target: {kind: ema, tap: {depth: [1/2, 1], at: visible}}, predictor: linear, loss: mse}}"
    )
    model, batch = attach(text, dtype=torch.float64), images(kept=4)
    loss, context = run(model, batch)
    at, slow, here = batch["latent"]["visible"][:, 0], context.teacher_views["ema"].states, context.view.states
    total = []
    for row in range(3):
        normed = [F.layer_norm(slow[k][row][at[row]], (32,)) for k in (2, 4)]
        goal = F.layer_norm((normed[0] + normed[1]) / 2, (32,))
        source = torch.cat([F.layer_norm(here[k][row][at[row]], (32,)) for k in (1, 4)], -1)
        total.append((model.latent.terms["a"].predictor(source[None])[0] - goal).square().mean())
    torch.testing.assert_close(loss, torch.stack(total).mean(), rtol=1e-5, atol=1e-6)


def test_v_jepa_weighs_seen_patches_by_how_near_a_hidden_one_is():
    text = """
    terms:
      seen:
        kind: predict
        source: {depth: [1/2, 1], fuse: concat, at: visible}
        target: {kind: ema, tap: {depth: [1/2, 1], fuse: concat, at: visible}, momentum: 0.5, normalize: none}
        predictor: linear
        loss: {kind: smooth_l1, beta: 0.0}
        distance_to: masked
    """
    model, batch = attach(text, dtype=torch.float64), images(kept=9, views=2)
    loss, context = run(model, batch)
    values, used = [], set()
    for row in range(3):
        for crop in range(2):
            start = crop * (1 + PATCHES) + 1
            seen, hidden = (batch["latent"][name][row, crop] - start for name in ("visible", "masked"))
            for place in seen.tolist():
                y, x = divmod(place, 4)
                apart = min(math.dist((y, x), divmod(other, 4)) for other in hidden.tolist())
                mine, slow = (
                    torch.cat([F.layer_norm(view.states[depth][row, start + place], (32,)) for depth in (2, 4)])
                    for view in (context.view, context.teacher_views["ema"])
                )
                guess = model.latent.terms["seen"].predictor(mine[None, None])[0, 0]
                values.append((guess - slow).abs().mean() / math.sqrt(apart))
                used.add(apart)
    assert len(used) > 1
    torch.testing.assert_close(loss, torch.stack(values).mean(), rtol=1e-6, atol=1e-9)
