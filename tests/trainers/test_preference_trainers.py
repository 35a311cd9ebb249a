"""DPO and GRPO with latent terms: which forward they are in, what they are averaged over, and that they are trained."""

import pytest
import torch
from attached_models import NEXT_STATE, POINTWISE, attach, head_weights, lora
from preference_models import by_hand, dpo, grpo, sampled, values
from tiny_trainers import Gradients, in_order
from trl import DPOTrainer, GRPOTrainer

from latentlm import latent_lora_config, remove_latent
from latentlm.attach.state import latent_state

EXIT = {
    "kind": "predict",
    "source": {"depth": "1/2"},
    "target": {"kind": "tokens"},
    "loss": {"kind": "next_token"},
    "decode_with": "norm_and_lm_head",
}
TABLE = {
    "kind": "levels",
    "sources": ["1/2", 1],
    "targets": ["data", "1/2"],
    "align": {"kind": "next"},
    "predictor": {"kind": "linear"},
    "loss": {"kind": "smooth_l1"},
}
TERMS = POINTWISE | {"exit": EXIT}


@in_order
def test_dpo_terms_are_those_of_the_chosen_rows(tmp_path):
    trainer = dpo(attach(terms=TERMS), tmp_path)
    trainer.train()
    line = trainer.state.log_history[0]
    data = trainer.train_dataset[:4]
    rows = [prompt + chosen for prompt, chosen in zip(data["prompt_ids"], data["chosen_ids"], strict=True)]
    labels = [[-100] * len(p) + c for p, c in zip(data["prompt_ids"], data["chosen_ids"], strict=True)]
    expected = values(by_hand(rows, labels, TERMS))
    assert set(expected) == {f"{name}/value" for name in TERMS}
    assert {key: line[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert line["data/value"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), rel=1e-6)  # policy = reference
    weighted = sum(line[f"{name}/weighted"] for name in TERMS)
    assert line["loss"] == pytest.approx(line["data/value"] + weighted, rel=1e-6)


def test_grpo_terms_are_those_of_the_sampled_rows(tmp_path):
    trainer = grpo(attach(terms=TERMS), tmp_path, beta=0.0)
    trainer.train()
    line = trainer.state.log_history[0]
    expected = values(by_hand(*sampled(trainer), TERMS))
    assert {key: line[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    weighted = sum(line[f"{name}/weighted"] for name in TERMS)
    assert line["loss"] == pytest.approx(line["data/value"] + weighted, abs=1e-6)
    assert line["rewards/longest/mean"] > 0


@pytest.mark.parametrize("of", [dpo, grpo])
def test_terms_are_in_the_gradient_of_heads_and_blocks(of, tmp_path):
    found = {}
    for weight in (0.0, 1.0):
        gradients = Gradients()
        model = attach(terms={"next_state": NEXT_STATE | {"weight": weight}, "table": TABLE | {"weight": weight}})
        before = head_weights(model)
        trainer = of(model, tmp_path, callbacks=[gradients])
        trainer.train()
        moved = [not torch.equal(a, b) for a, b in zip(before, head_weights(model), strict=True)]
        found[weight] = gradients.found, moved, trainer.state.log_history[0]
    assert not any(found[0.0][1])
    assert all(found[1.0][1])
    assert not torch.allclose(found[0.0][0][0], found[1.0][0][0], atol=1e-4)
    assert found[0.0][2]["next_state/value"] == pytest.approx(found[1.0][2]["next_state/value"], rel=1e-5)


@pytest.mark.parametrize(("of", "cls"), [(dpo, DPOTrainer), (grpo, GRPOTrainer)])
def test_without_terms_it_is_trls_own_step(of, cls, tmp_path):
    lines = []
    for model, more in ((attach(terms={}), {}), (remove_latent(attach(terms={})), {"cls": cls})):
        trainer = of(model, tmp_path, max_steps=3, learning_rate=0.1, max_grad_norm=1e9, **more)
        trainer.train()
        lines.append([(line["loss"], line["grad_norm"]) for line in trainer.state.log_history[:3]])
    assert lines[0] == lines[1]
    assert all(norm > 0.01 for _, norm in lines[0])


@pytest.mark.parametrize("of", [dpo, grpo])
def test_accumulating_is_one_batch(of, tmp_path):
    found = []
    for size, accumulation in ((8, 1), (4, 2)):
        gradients, model = Gradients(), attach(terms=TERMS)
        more = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        trainer = of(model, tmp_path, callbacks=[gradients], **more)
        trainer.train()
        found.append((trainer.state.log_history[0], gradients.found))
    names = [name for name in found[0][0] if name == "loss" or name.endswith(("/value", "/weighted"))]
    assert len(names) == 2 + 2 * len(TERMS)
    assert {n: found[1][0][n] for n in names} == pytest.approx({n: found[0][0][n] for n in names}, rel=2e-5, abs=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["off", "not reentrant"])
@pytest.mark.parametrize("of", [dpo, grpo])
def test_lora_reads_its_reference_off_the_network_without_adapter(of, kind, tmp_path):
    model = attach(terms=TERMS)
    weights = {name: weight.clone() for name, weight in model.named_parameters() if "latent" not in name}
    more = {"beta": 0.1, "max_steps": 3, "gradient_checkpointing": kind != "off", "learning_rate": 0.5}
    torch.manual_seed(0)
    trainer = of(model, tmp_path, peft_config=latent_lora_config(r=4, target_modules="all-linear"), **more)
    trainer.train()
    lines = trainer.state.log_history[:3]
    names = [f"{name}/value" for name in TERMS]
    assert all(line[name] > 0 for line in lines for name in names)
    assert lines[2]["next_state/value"] < lines[0]["next_state/value"]
    assert latent_state(trainer.model).model.latent.step >= 2  # the last one is counted by what comes next
    base = {name.replace(".base_layer", ""): w for name, w in trainer.model.get_base_model().named_parameters()}
    assert all(torch.equal(base[name], weight) for name, weight in weights.items())
    drift = [line["kl"] if of is grpo else abs(line["rewards/margins"]) for line in lines]
    assert drift[0] == pytest.approx(0, abs=1e-6)
    assert drift[2] > 1e-7


@pytest.mark.parametrize("of", [dpo, grpo])
def test_an_adapter_trained_before_has_its_copy_as_reference(of, tmp_path):
    model = lora(attach(terms=TERMS))
    before = head_weights(model)
    trainer = of(model, tmp_path, beta=0.1)
    trainer.train()
    line = trainer.state.log_history[0]
    assert (line["kl"] if of is grpo else line["rewards/margins"]) == pytest.approx(0, abs=1e-6)
    assert all(not torch.equal(a, b) for a, b in zip(before, head_weights(trainer.model), strict=True))


@pytest.mark.parametrize("of", [dpo, grpo])
def test_what_these_rows_cannot_give_is_refused(of, tmp_path):
    names = {
        "kind": "predict",
        "source": {"depth": "1/2", "at": "source_last"},
        "target": {"kind": "token_embeddings", "ids": "target_ids"},
        "loss": {"kind": "cosine"},
    }
    with pytest.raises(
        ValueError, match=r"objective.terms.names: reads source_last, target_ids, which these rows"
    ) as caught:
        of(attach(terms={"names": names}), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_reference_that_follows_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^sync_ref_model: the reference has no heads"):
        dpo(attach(), tmp_path, sync_ref_model=True)


@pytest.mark.parametrize(("of", "cls"), [(dpo, DPOTrainer), (grpo, GRPOTrainer)])
def test_stock_trainers_say_that_they_ignore_the_terms(of, cls, tmp_path):
    trainer = of(attach(terms=TERMS), tmp_path, cls=cls)
    with pytest.raises(
        ValueError, match="without them; use LatentSFTTrainer, LatentDPOTrainer or LatentGRPO"
    ) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no latent heads; call get_latent_model first"):
        of(remove_latent(attach()), tmp_path)


@pytest.mark.parametrize("of", [dpo, grpo])
def test_resumed_run_equals_the_straight_one(of, tmp_path):
    # within an epoch: in the next one TRL's GRPO draws the order of prompts anew when it resumes
    more = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch"}
    straight = of(attach(terms=TERMS), tmp_path, **more)
    straight.train()
    resumed = of(attach(terms=TERMS, seed=1), tmp_path, **more)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    lines = [each.state.log_history[:2] for each in (straight, resumed)]
    own = {"step_time", "num_tokens"}  # TRL counts its tokens anew
    assert [{k: v for k, v in line.items() if k not in own} for line in lines[1]] == [
        {k: v for k, v in line.items() if k not in own} for line in lines[0]
    ]
    one, other = straight.model.state_dict(), resumed.model.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0, msg=name)
