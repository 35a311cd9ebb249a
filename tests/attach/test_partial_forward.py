"""What nobody reads is not run: the network without units that teachers read alone, teachers on these alone."""

import pytest
import torch
from attached_models import attach
from checkpointing import recompute
from datasets import Dataset
from tiny_models import DESIGNS, build
from tiny_trainers import trainer_of

from latentlm import get_latent_model
from latentlm.attach import hooks, teacher_forward
from latentlm.attach.leak_checks import mixes_segments
from latentlm.attach.state import latent_state
from latentlm.components.attention_mask import flash_arguments
from latentlm.components.units import UnitsAlone
from latentlm.data.text.collate import Collator
from latentlm.trainers.latent_trainer import LatentTrainer

pytestmark = pytest.mark.filterwarnings("ignore:a second backward")

PAIR, FOUR = {"kind": "unit", "grain": "pair"}, {"kind": "unit", "grain": "four"}
SIZES = {"pair": 2, "four": 4}


def next_alone(unit, kind="ema", depth="1/2", **more):
    target = {"kind": kind, "tap": {"depth": depth, "at": unit | {"offset": 1, "read": "alone"}}}
    source = {"depth": "1/2", "at": unit}
    return {"kind": "predict", "source": source, "target": target, "loss": {"kind": "info_nce"}, **more}


def example(length, seed, part=0):
    ids = torch.randint(3, 97, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    units = {grain: [[k, k + size, -1] for k in range(0, length - size + 1, size)] for grain, size in SIZES.items()}
    return {"input_ids": ids, "labels": [-100, *ids[1:]], "units": units, "part": part}


EXAMPLES = [example(length, seed, seed % 2) for seed, length in enumerate((12, 8, 9, 4, 10, 7))]
ALONE = (UnitsAlone("pair", first=1), UnitsAlone("four", first=1))


def batch(row_length=None, alone=ALONE, **more):
    return Collator(0, grains=("pair", "four"), alone=alone, row_length=row_length, **more)(EXAMPLES)


def run(model, inputs):
    """Loss, parts, gradients, what the monitor says, and the positions that the blocks were given."""
    given = []

    def note(block, args, kwargs):
        given.append((tuple((args[0] if args else kwargs["hidden_states"]).shape[:2]), torch.is_grad_enabled()))

    hook = latent_state(model).backbone.layers[0].register_forward_pre_hook(note, with_kwargs=True)
    latent_state(model).monitoring.probe.looked = None
    model.train()
    model.zero_grad()
    out = model(**inputs)
    out.loss.backward()
    hook.remove()
    grads = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    probe = dict(latent_state(model).monitoring.probe.found)
    positions = {who: [shape[0] * shape[1] for shape, own in given if own is (who == "own")] for who in ("own", "them")}
    return out, grads, probe, positions


def whole(monkeypatch):
    for module, name in ((hooks, "own_part"), (teacher_forward, "teacher_part")):
        monkeypatch.setattr(module, name, lambda *args: None)


def compare(model, inputs, monkeypatch, tolerance=1e-5):
    """The same in parts and whole; returns the positions of both."""
    out, grads, probe, positions = run(model, inputs)
    with monkeypatch.context() as patch:
        whole(patch)
        plain, all_grads, all_probe, all_positions = run(model, inputs)
    assert out.latent_loss.abs() > 1e-3
    for name in ("loss", "latent_loss", "data_loss"):
        torch.testing.assert_close(out[name], plain[name], rtol=tolerance, atol=1e-6)
    assert out.logits.shape == plain.logits.shape
    labelled = inputs["labels"][:, 1:] != -100
    torch.testing.assert_close(out.logits[:, :-1][labelled], plain.logits[:, :-1][labelled], rtol=1e-4, atol=1e-5)
    assert grads.keys() == all_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, all_grads[name], rtol=1e-3, atol=1e-6, msg=name)
    assert probe == pytest.approx(all_probe, rel=1e-3, abs=1e-5)
    return positions, all_positions


@pytest.mark.parametrize("row_length", [None, 64])
@pytest.mark.parametrize("teacher", ["ema", "frozen", "random"])
def test_losses_gradients_and_measures_are_those_of_the_whole_batch(teacher, row_length, monkeypatch):
    kind, more = ("ema", {"teacher": "random"}) if teacher == "random" else (teacher, {})
    terms = {"pairs": next_alone(PAIR, kind, **more), "fours": next_alone(FOUR, kind, **more)}
    model, inputs = attach(terms=terms, monitor=1), batch(row_length)
    part, every = compare(model, inputs, monkeypatch)
    copies = sum(int((inputs["latent"][f"alone/{grain}"] >= 0).sum()) for grain in SIZES)
    real = int((inputs["latent"]["segments"] >= 0).sum())
    assert every == {"own": [inputs["input_ids"].numel()], "them": [inputs["input_ids"].numel()]}
    assert real - copies <= part["own"][0] < 0.7 * every["own"][0]
    assert copies <= part["them"][0] < 0.7 * every["them"][0]
    if row_length is None:  # as wide as the longest document
        assert part["own"] == [len(EXAMPLES) * 12]


@pytest.mark.parametrize("name", sorted(DESIGNS))
def test_every_design_of_network(name, monkeypatch):
    model = get_latent_model(build(name), {"terms": {"pairs": next_alone(PAIR)}, "monitor_every": 0})
    inputs = batch()
    if mixes_segments(model, inputs):
        pytest.skip("does not keep packed segments apart, which is refused")
    compare(model, inputs, monkeypatch, tolerance=1e-4)


def test_what_the_network_reads_alone_is_run(monkeypatch):
    own = next_alone(PAIR, "online")
    alone = next_alone(PAIR) | {"source": {"depth": "1/2", "at": PAIR | {"read": "alone"}}}
    everywhere = {
        "kind": "predict", "source": {"depth": "1/2"}, "loss": {"kind": "mse"},
        "target": {"kind": "ema", "tap": {"depth": "1/2", "at": "next"}},
    }  # fmt: skip
    inputs = batch()
    size = inputs["input_ids"].numel()
    needed = batch(alone=ALONE[:1])["input_ids"].numel()  # without fours, which nobody reads
    for terms in ({"own": own, "them": next_alone(PAIR)}, {"alone": alone}):
        part, every = compare(attach(terms=terms), inputs, monkeypatch)
        assert (part["own"], every["own"]) == ([needed], [size])
    positions = run(attach(terms={"all": everywhere, "them": next_alone(PAIR)}), inputs)[-1]
    assert positions == {"own": [size], "them": [size]}


def test_what_the_caller_asks_for_is_not_cut():
    model, inputs = attach(terms={"pairs": next_alone(PAIR)}), batch()
    model.train()
    shape = inputs["input_ids"].shape
    assert model(**inputs, output_hidden_states=True).hidden_states[-1].shape[:2] == shape
    model.config.output_hidden_states = True
    assert model(**inputs).hidden_states[-1].shape[:2] == shape
    model.config.output_hidden_states = False
    hidden = torch.full((len(EXAMPLES), 1, 3), -1)
    hidden[0, 0] = torch.tensor([0, 2, 3])
    inputs["latent"]["hidden"] = hidden
    assert run(model, inputs)[-1]["own"] == [shape.numel()]


def test_predictor_tokens_are_in_the_teachers_part(monkeypatch):
    pair = PAIR | {"offset": 1, "read": "alone", "predictor_tokens": 2}
    term = next_alone(PAIR) | {"target": {"kind": "ema", "tap": {"depth": "1/2", "at": pair}}}
    inputs = batch(alone=(UnitsAlone("pair", predictor_tokens=2),))
    part, every = compare(attach(terms={"pairs": term}), inputs, monkeypatch)
    assert part["them"][0] < every["them"][0]


def test_a_part_of_a_mixture_and_units_at_once(monkeypatch):
    inputs = batch(unread={1: ["pairs"]})
    part, every = compare(attach(terms={"pairs": next_alone(PAIR)}), inputs, monkeypatch)
    assert part["them"][0] < 0.4 * every["them"][0]


def test_what_only_a_term_that_is_off_reads_is_left_out(monkeypatch):
    terms = {"online": next_alone(PAIR, "online", weight={"value": 1.0, "stop": 2}), "ema": next_alone(FOUR)}
    model, inputs = attach(terms=terms), batch()
    assert run(model, inputs)[-1]["own"][0] > len(EXAMPLES) * 12
    model.latent.step = 2
    part, _ = compare(model, inputs, monkeypatch)
    assert part["own"] == [len(EXAMPLES) * 12]


def test_a_trainer_leaves_units_out_from_the_step_on_at_which_their_term_stops(tmp_path):
    terms = {
        "pairs": next_alone(PAIR, weight={"value": 1.0, "stop": 2}),
        "fours": next_alone(FOUR, weight={"value": 1.0, "stop": 4}),
    }
    model, given = attach(terms=terms), []

    def note(block, args, kwargs):
        given.append(((args[0] if args else kwargs["hidden_states"]).shape[1], torch.is_grad_enabled()))

    model.model.layers[0].register_forward_pre_hook(note, with_kwargs=True)
    more = {"max_steps": 6, "per_device_train_batch_size": 6, "remove_unused_columns": False}
    data = {
        "train_dataset": Dataset.from_list(EXAMPLES),
        "data_collator": Collator(0, grains=("pair", "four"), alone=ALONE),
    }
    trainer_of(LatentTrainer, model, tmp_path, arguments_more=more, **data).train()
    assert [width for width, own in given if own] == [12] * 6
    first, second, third, fourth = [width for width, own in given if not own]
    assert first == second > third == fourth


def test_recomputed_blocks_are_given_the_part(monkeypatch):
    model = attach(terms={"pairs": next_alone(PAIR)})
    recompute(model, use_reentrant=False)
    compare(model, batch(), monkeypatch)


def test_flash_attention_is_told_where_the_segments_of_the_part_end(monkeypatch):
    model, inputs = attach(terms={"pairs": next_alone(PAIR)}), batch(packing="padding_free")
    inputs |= flash_arguments(inputs["position_ids"])
    told = []
    layer = model.model.layers[0]
    layer.register_forward_pre_hook(lambda _, args, kwargs: told.append(kwargs), with_kwargs=True)
    part, every = compare(model, inputs, monkeypatch)
    documents = [len(each["input_ids"]) for each in EXAMPLES]
    copies = sum(int((inputs["latent"][f"alone/{grain}"] >= 0).sum()) for grain in SIZES)
    assert (part["own"], every["own"]) == ([sum(documents)], [sum(documents) + copies])
    teacher, own = told[:2]
    assert own["cu_seq_lens_q"].diff().tolist() == own["cu_seq_lens_k"].diff().tolist() == documents
    assert (own["max_length_q"], own["max_length_k"]) == (12, 12)
    assert own["seq_idx"][0].bincount().tolist() == documents
    assert set(teacher["cu_seq_lens_q"].diff().tolist()) == {2}
