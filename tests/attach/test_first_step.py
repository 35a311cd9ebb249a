"""What would train nothing, or something else than was meant, is told at the first step in one line."""

import pytest
import torch
from tiny_models import VOCAB, build, ids
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaModel,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from latentlm import get_latent_model, latent_lora_config
from latentlm.attach.forward_io import ForwardInputs
from latentlm.backbones.collect_states import collect_states

TERM = {
    "kind": "predict",
    "source": {"depth": "1/2"},
    "target": {"kind": "online", "tap": {"depth": "1/2", "at": "next"}, "normalize": "layer"},
    "loss": "smooth_l1",
}
ONE = {"monitor_every": 0, "terms": {"a": TERM}}
SIZE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}


def batch(rows=2, length=10):
    return {"input_ids": ids(rows, length), "labels": ids(rows, length)}


def test_a_step_in_evaluation_mode_is_refused():
    model = get_latent_model(build("llama"), ONE).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**batch()).loss.backward()
    with pytest.raises(ValueError, match=r"a step was made in evaluation mode.*call model.train\(\) first"):
        optimizer.step()


def test_in_evaluation_mode_only_the_model_itself_must_not_be_stepped():
    """A tensor of one's own may be (an input that is searched for); flat copies of the weights are the model's."""
    model = get_latent_model(build("llama"), ONE).eval()
    own = torch.zeros(1, 4, 32, requires_grad=True)
    optimizer = torch.optim.SGD([own], lr=0.1)
    for _ in range(2):
        model(inputs_embeds=own).logits.sum().backward()
        optimizer.step()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    buffer = torch.cat([weight.detach().flatten() for weight in weights])  # as DeepSpeed keeps them
    for weight, part in zip(weights, buffer.split([weight.numel() for weight in weights]), strict=True):
        weight.data = part.view_as(weight)
    model(**batch()).loss.backward()
    copies = buffer.clone().requires_grad_()
    copies.grad = torch.ones_like(copies)
    with pytest.raises(ValueError, match="a step was made in evaluation mode"):
        torch.optim.SGD([copies], lr=0.1).step()


def test_gradients_in_evaluation_mode_beside_training_are_nothing_odd():
    model = get_latent_model(build("llama"), ONE).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):
        model.eval()(**batch())
        model.train()(**batch()).loss.backward()
        model.eval()(**batch())
        optimizer.step()
        assert model.latent.step == step + 1


def test_heads_in_no_optimizer_are_told_at_the_next_step():
    model = build("llama")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model = get_latent_model(model, ONE).train()
    model(**batch()).loss.backward()
    optimizer.step()
    model.zero_grad()
    with pytest.raises(ValueError, match=r"2 of their weights are in no optimizer \(latent"):
        model(**batch())


def test_what_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing is trained"):
        get_latent_model(build("llama"), {"lm_weight": 0, "terms": {"a": TERM | {"weight": 0.0}}})
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="finite"):
            get_latent_model(build("llama"), {"lm_weight": value, "terms": {"a": TERM}})
        with pytest.raises(ValueError, match="finite"):
            get_latent_model(build("llama"), {"terms": {"a": TERM | {"weight": value}}})


def test_a_target_that_is_its_own_source_is_refused():
    own = TERM | {"target": {"kind": "online", "tap": {"depth": 0.5}}}
    with pytest.raises(ValueError, match=r"objective\.terms\.a: the target is its own source"):
        get_latent_model(build("llama"), {"terms": {"a": own}})


def padded(width, kind):
    inputs = torch.zeros(1, width, dtype=torch.long)
    inputs[0, :8] = torch.arange(3, 11)
    made = {"input_ids": inputs, "labels": torch.where(inputs > 0, inputs, -100)}
    if kind == "2d":
        made["attention_mask"] = (inputs > 0).long()
    if kind == "4d":
        made["attention_mask"] = torch.tril(torch.ones(width, width, dtype=torch.bool))[None, None]
    return made


@pytest.mark.parametrize("kind", ["2d", "none"])
def test_padding_changes_nothing(kind):
    model = get_latent_model(build("llama", pad_token_id=0), ONE).train()
    losses = [model(**padded(width, kind)).latent_loss.item() for width in (8, 10, 24)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_a_mask_of_queries_and_keys_is_refused_without_segments():
    model = get_latent_model(build("llama", pad_token_id=0), ONE).train()
    with pytest.raises(ValueError, match="attention_mask: a table of queries and keys does not say"):
        model(**padded(10, "4d"))
    latent = {"segments": torch.tensor([[0] * 8 + [-1] * 2])}
    assert model(**padded(10, "4d"), latent=latent).latent_loss.isfinite()


def test_documents_by_number_and_by_their_ends_are_documents():
    want = [[0, 0, 0, 1, 1, -1]]
    mask = torch.tensor([[1, 1, 1, 2, 2, 0]])
    assert ForwardInputs(input_ids=ids(1, 6), attention_mask=mask).segments().tolist() == want
    assert ForwardInputs(input_ids=ids(1, 6), seq_idx=torch.tensor(want)).segments().tolist() == want
    ends = torch.tensor([0, 3, 6])
    assert ForwardInputs(input_ids=ids(1, 6), cu_seq_lens_q=ends).segments().tolist() == [[0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("mask", "positions", "want"),
    [
        ([1, 1, 1, 1, 1, 0], [0, 1, 0, 1, 2, 3], [0, 0, 1, 1, 1, -1]),  # the mask alone says one document
        ([1, 1, 2, 2, 2, 0], [0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 2, -1]),  # each cuts where the other does not
        ([1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]),  # they agree
        ([1, 1, 2, 2, 2, 0], [0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, -1]),  # positions that never restart say nothing
        ([0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 2, 3], [-1, -1, 0, 0, 0, 0]),  # padded on the left, as generate counts
        ([0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 2, 3], [-1, -1, 0, 0, 0, 0]),
        ([1, 1, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5], [0, 0, -1, 0, 0, 0]),  # a hidden token inside a document
        ([1, 1, 0, 1, 1, 1], [0, 1, 1, 2, 3, 4], [0, 0, -1, 0, 0, 0]),
        ([1, 1, 1, 1, 1, 1], [0, 1, 5, 6, 9, 9], [0, 0, 0, 0, 0, 1]),  # gaps cut nothing
    ],
)
def test_mask_and_positions_give_the_finer_of_both(mask, positions, want):
    given = ForwardInputs(
        input_ids=ids(1, 6), attention_mask=torch.tensor([mask]), position_ids=torch.tensor([positions])
    )
    assert given.segments().tolist() == [want]


def test_a_mask_hides_padding_whatever_says_the_documents():
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    number, ends = torch.tensor([[0, 0, 0, 1, 1, 1]]), torch.tensor([0, 3, 6])
    want = [[0, 0, 0, 1, 1, -1]]
    assert ForwardInputs(input_ids=ids(1, 6), attention_mask=mask, seq_idx=number).segments().tolist() == want
    assert ForwardInputs(input_ids=ids(1, 6), attention_mask=mask, cu_seq_lens_q=ends).segments().tolist() == want


def test_two_documents_in_a_row_with_a_mask_are_those_of_positions_alone():
    """The latent loss; the attention is the model's own, and the first document is the same in both."""
    model = get_latent_model(build("llama", pad_token_id=0), ONE).train()
    one = {"input_ids": ids(1, 10), "position_ids": torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0]])}
    alone = model(**one).latent_loss
    assert model(**one, attention_mask=torch.ones(1, 10, dtype=torch.long)).latent_loss.item() == pytest.approx(
        alone.item(), rel=1e-5
    )
    longer = one | {"position_ids": torch.arange(10)[None]}
    assert model(**longer).latent_loss.item() != pytest.approx(alone.item(), rel=1e-3)


def test_a_set_that_leaves_its_row_is_refused():
    at = {"kind": "predict", "source": {"depth": 1.0, "at": "foo"}, "loss": "smooth_l1"}
    at["target"] = {"kind": "online", "tap": {"depth": "1/2", "at": "foo"}}
    model = get_latent_model(build("llama"), {"monitor_every": 0, "terms": {"a": at}}).train()
    for row in range(3):
        where = torch.full((3, 1, 1), -1)
        where[row] = 10
        with pytest.raises(ValueError, match="the set 'foo' has a position beyond the 10 of a row"):
            model(**batch(3), latent={"foo": where})
    with pytest.raises(ValueError, match="the set 'foo' has 2 rows, and the batch 3"):
        model(**batch(3), latent={"foo": torch.ones(2, 1, 1, dtype=torch.long)})


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: T5ForConditionalGeneration(
                T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
            ),
            "is an encoder-decoder",
        ),
        (lambda: BertForMaskedLM(BertConfig(**SIZE, intermediate_size=64)), "reads in both directions"),
        (lambda: LlamaModel(LlamaConfig(**SIZE, intermediate_size=64)), "LlamaModel has no own loss; set it to 0"),
    ],
)
def test_bodies_that_do_not_fit_are_refused(make, line):
    with pytest.raises(ValueError, match=line):
        get_latent_model(make(), ONE)


def test_a_body_without_a_head_trains_on_its_terms():
    model = get_latent_model(LlamaModel(LlamaConfig(**SIZE, intermediate_size=64)), ONE | {"lm_weight": 0}).train()
    out = model(input_ids=ids(2, 8))
    assert torch.equal(out.loss, out.latent_loss)


def test_shared_blocks_and_blocks_that_were_left_out_are_refused():
    model = build("llama")
    model.model.layers[2] = model.model.layers[1]
    with pytest.raises(ValueError, match="one block several times"):
        get_latent_model(model, ONE)
    model = get_latent_model(build("llama"), ONE).train()
    model.model.config.num_hidden_layers = 1  # the forward stops there
    with pytest.raises(ValueError, match=r"block 2 was left out of this forward \(layerdrop"):
        model(**batch())


class Looped(torch.nn.ModuleList):
    """Blocks of which a forward runs the last one twice; nothing of it shows before."""

    def __getitem__(self, index):
        found = super().__getitem__(index)
        return [*found, found[-1]] if isinstance(index, slice) else found


def test_a_block_that_runs_twice_in_a_forward_is_refused():
    line = r"block 4 ran twice in one forward \(a looped network\?\)"
    model = build("llama")
    model.model.layers = Looped(model.model.layers)
    blocks = list(model.model.layers)
    with pytest.raises(ValueError, match=line):
        collect_states(lambda: model(**batch()), blocks, [1, 4], lambda state: state)
    model = get_latent_model(model, ONE).train()
    with pytest.raises(ValueError, match=line):
        model(**batch())
    assert model.eval()(**batch()).loss.isfinite()  # without terms it is the plain model


@pytest.mark.parametrize("lm_weight", [1.0, 0.5, 0.0])
def test_the_balance_of_experts_keeps_its_weight(lm_weight):
    def gates(model):
        model(**batch(4, 16)).loss.backward()
        return torch.cat([w.grad.flatten() for name, w in model.named_parameters() if "gate.weight" in name])

    options = SIZE | {"intermediate_size": 48, "num_key_value_heads": 2, "num_local_experts": 4}
    made = []
    for share in (0.5, 0.0):
        torch.manual_seed(0)
        config = MixtralConfig(**options, num_experts_per_tok=2, output_router_logits=True, router_aux_loss_coef=share)
        model = get_latent_model(MixtralForCausalLM(config), ONE | {"lm_weight": lm_weight}).train()
        made.append(gates(model))
    torch.manual_seed(0)
    config = MixtralConfig(**options, num_experts_per_tok=2, output_router_logits=True, router_aux_loss_coef=0.5)
    plain = MixtralForCausalLM(config).train()
    (0.5 * plain(**batch(4, 16)).aux_loss).backward()
    alone = torch.cat([w.grad.flatten() for name, w in plain.named_parameters() if "gate.weight" in name])
    torch.testing.assert_close(made[0] - made[1], alone, rtol=1e-3, atol=1e-7)


def test_adapters_keep_the_heads_whatever_else_is_saved():
    from peft import get_peft_model

    config = latent_lora_config(r=2, modules_to_save=["lm_head"], exclude_modules=["o_proj"])
    model = get_peft_model(get_latent_model(build("llama"), ONE), config).train()
    assert model(**batch()).latent_loss.requires_grad
    named = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert any("latent" in name for name in named)
    assert any("lm_head" in name for name in named)
    assert not [name for name in named if "lora" in name and ("latent" in name or "o_proj" in name)]
