"""What one attached model does in its calls: precision, compilation, counting of steps, and refusals in one line."""

import pytest
import torch
from attached_models import (
    LAST_TO_LAST,
    NEXT,
    NEXT_STATE,
    NORMAL,
    POINTWISE,
    SLOW,
    attach,
    batch_of,
    checkpointed,
    documents,
    head_weights,
    tapped_gradients,
)
from tiny_models import DIM, build, ids
from tiny_trainers import words
from transformers import AutoModelForCausalLM, AutoTokenizer

import latentlm
from latentlm import get_latent_model
from latentlm.attach.rank_profile import rank_over_depth
from latentlm.attach.state import latent_state
from latentlm.export.export import export

compiling = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # by dynamo
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # by inductor
]
ALL = POINTWISE | {"last": LAST_TO_LAST, "normal": NORMAL}
HEAD = {"heads": {"shared": {"kind": "projector", "dim": 16}}}
THROUGH_HEAD = NEXT_STATE | {
    "source": {"depth": "1/2", "head": "shared"},
    "target": {"kind": "online", "tap": {"depth": "1/2", "at": NEXT, "head": "shared"}},
    "predictor": {"kind": "identity"},
}


def step(model, autocast=False):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(**batch_of(documents()))
    output.loss.backward()
    return output, tapped_gradients(model)


def test_half_precision_is_close():
    exact, gradients = step(attach(terms=ALL))
    half = get_latent_model(build("llama").to(torch.bfloat16), {"terms": ALL, "monitor_every": 0}).train()
    assert {weight.dtype for weight in half.latent.parameters()} == {torch.float32}
    for output, found in (step(half), step(attach(terms=ALL), autocast=True)):
        assert output.latent_loss.dtype == torch.float32
        assert output.latent_loss.item() == pytest.approx(exact.latent_loss.item(), rel=2e-2)
        for mine, theirs in zip(found, gradients, strict=True):
            assert mine.isfinite().all()
            assert torch.nn.functional.cosine_similarity(mine.float().flatten(), theirs.flatten(), dim=0) > 0.97
    assert {copy.dtype for copy in half.latent.teachers["ema"].buffers()} == {torch.float32}


@pytest.mark.parametrize("autocast", [False, True])
def test_a_shared_head_is_trained_in_half_precision(autocast):
    terms = {
        "target_only": THROUGH_HEAD | {"source": {"depth": "1/2"}, "predictor": {"kind": "linear"}},
        "both": THROUGH_HEAD,
    }
    model = build("llama") if autocast else build("llama").to(torch.bfloat16)
    get_latent_model(model, HEAD | {"terms": terms, "monitor_every": 0}).train()
    step(model, autocast)
    for weight in model.latent.terms.heads.parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=compiling) for kind in ("off", "not reentrant")])
def test_compiled_model_makes_the_same_steps(kind):
    model, other = (
        checkpointed(get_latent_model(build("llama"), {"terms": ALL, "monitor_every": 2}), kind).train() for _ in "ab"
    )
    compiled = torch.compile(other, backend="aot_eager")
    optimizers = [torch.optim.SGD(each.parameters(), lr=1e-2) for each in (model, other)]
    for _ in range(2):
        outputs = [each(**batch_of(documents())) for each in (model, compiled)]
        torch.testing.assert_close(outputs[1].latent_loss, outputs[0].latent_loss)
        torch.testing.assert_close(outputs[1].loss, outputs[0].loss)
        for output, optimizer in zip(outputs, optimizers, strict=True):
            output.loss.backward()
            optimizer.step()
        torch.testing.assert_close(tapped_gradients(other), tapped_gradients(model))
        for optimizer in optimizers:
            optimizer.zero_grad()
    assert other.latent.step == model.latent.step == 2
    assert latent_state(other).monitoring.metrics.latest.keys() == latent_state(model).monitoring.metrics.latest.keys()
    assert latent_state(model).monitoring.probe.found
    assert not latent_state(other).monitoring.probe.found  # no gradient can be seen inside a graph


@pytest.mark.slow
@compiling[0]
@compiling[1]
def test_grad_ratio_of_a_compiled_model_is_refused():
    terms = {"next_state": NEXT_STATE | {"weight": {"value": 1.0, "grad_ratio": 0.1}}}
    model = torch.compile(
        get_latent_model(build("llama"), {"terms": terms, "monitor_every": 1}).train(), backend="aot_eager"
    )
    with pytest.raises(ValueError, match=r"weight.grad_ratio: cannot be measured in a compiled"):
        model(**batch_of(documents()))


def test_attaching_draws_nothing_from_the_random_state():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    model = get_latent_model(build_at(1), {"terms": POINTWISE}, seed=3)
    assert torch.rand(1) == expected
    same, other = (get_latent_model(build("llama"), {"terms": POINTWISE}, seed=seed) for seed in (3, 4))
    assert all(torch.equal(a, b) for a, b in zip(head_weights(model), head_weights(same), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(head_weights(model), head_weights(other), strict=True) if a.any())


def build_at(seed):
    state = torch.get_rng_state()
    model = build("llama")
    torch.set_rng_state(state)
    return model


def test_the_teacher_leaves_dropout_alone():
    losses = []
    for terms in ({"next_state": NEXT_STATE}, {"next_state": NEXT_STATE, "slow": SLOW}):
        model = build("gpt2")
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
        get_latent_model(model, {"terms": terms, "monitor_every": 0}).train()
        torch.manual_seed(5)
        losses.append(model(**batch_of(documents())).data_loss)
        assert all(module.training for module in model.modules())
    assert losses[0] == losses[1]


def test_steps_are_those_of_the_optimizer_whatever_the_number_of_forwards():
    model = attach()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    seen = []
    for _ in range(3):
        for _ in range(2):
            model(**batch_of(documents())).loss.backward()
            seen.append(model.latent.step)
        optimizer.step()
    assert seen == [0, 0, 1, 1, 2, 2]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert int(state["latent._extra_state"]) == model.latent.step == 3
    model.load_state_dict(state)
    model(**batch_of(documents()))
    assert model.latent.step == 3  # loading is no step
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if "teachers" in name)


def test_layers_path_is_kept_in_the_checkpoint(tmp_path):
    model = get_latent_model(build("llama"), {"terms": POINTWISE}, layers_path="model.layers")
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.latentlm["layers_path"] == "model.layers"
    assert latent_state(latentlm.from_pretrained(tmp_path)).backbone.num_layers == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_export_is_the_plain_model(dtype, tmp_path):
    model = attach().to(dtype)
    model.save_pretrained(tmp_path / "heads")
    words().save_pretrained(tmp_path / "heads")
    export(tmp_path / "heads", tmp_path / "plain")
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not any(report.values())
    assert plain.dtype == dtype
    assert not hasattr(plain.config, "latentlm")
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / "heads")(input_ids=ids()).logits
        assert torch.equal(plain(input_ids=ids()).logits, expected)
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").get_vocab() == words().get_vocab()


def test_an_objective_without_terms_is_the_plain_model(tmp_path):
    model, plain = attach(terms={}), build("llama").train()
    batch = batch_of(documents())
    output = model(**batch)
    assert output.loss == output.data_loss == plain(**batch).loss
    assert output.latent_loss == 0
    model.save_pretrained(tmp_path)
    assert latentlm.from_pretrained(tmp_path)(**batch).loss == output.loss


def test_weight_of_the_data_loss():
    output = get_latent_model(build("llama"), {"lm_weight": 0.5, "terms": POINTWISE}).train()(**batch_of(documents()))
    torch.testing.assert_close(output.loss, 0.5 * output.data_loss + output.latent_loss)
    assert not output.data_loss.requires_grad


def test_position_ids_of_one_row_serve_all_rows():
    batch = batch_of(documents((9, 9)))
    del batch["attention_mask"]
    places = torch.cat([torch.arange(4), torch.arange(5)])[None]
    expected = attach()(**batch, position_ids=places.expand(2, -1)).latent_loss
    assert attach()(**batch, position_ids=places).latent_loss == expected


def test_generation_in_training_mode_is_that_of_the_plain_model():
    options = {"max_new_tokens": 4, "do_sample": False}
    model = attach()
    assert torch.equal(model.generate(ids()[:1], **options), build("llama").generate(ids()[:1], **options))
    assert model.latent.step == 0


def test_rank_over_depth_reads_every_depth():
    packed = batch_of(documents(), "packed")
    packed["latent"] = {"segments": (packed["position_ids"] == 0).cumsum(1) - 1}
    for name in ("llama", "mamba", "openai-gpt"):
        model = attach(name)
        found = rank_over_depth(model, packed)
        assert found["depth"] == [0, 1, 2, 3, 4]
        assert found["dim"] == DIM
        assert all(1 < rank <= DIM for rank in found["rank"])
        assert model.training


REFUSALS = {
    "already has a child named 'latent'": lambda: get_latent_model(attach(), {"terms": {}}),
    "has no latent heads; call get_latent_model first": lambda: latent_state(build("llama")),
    "return_dict=False: the latent terms need": lambda: attach()(**batch_of(documents()), return_dict=False),
    "need input_ids, attention_mask or position_ids": lambda: attach()(inputs_embeds=torch.zeros(1, 4, DIM)),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_refusals_are_one_line(message):
    with pytest.raises(ValueError, match=message) as caught:
        REFUSALS[message]()
    assert "\n" not in str(caught.value)
