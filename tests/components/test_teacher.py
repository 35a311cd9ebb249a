"""Teachers: an average that moves once per optimizer step, a network as it was, and nothing copied without need."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import ids
from torch import nn
from toy_view import llama, states

from latentlm.attach.optimizer_steps import StepTracker
from latentlm.attach.state import latent_state
from latentlm.attach.teacher_forward import teacher_health
from latentlm.components.teacher import Teacher, TeacherConfig, trained

TERM = """
terms:
  slow:
    kind: predict
    source: {depth: 1/4}
    target: {kind: %s, tap: {depth: 1/2, at: next}%s}
    loss: smooth_l1
"""
BATCHES = [{"input_ids": ids(2, 8, seed), "labels": ids(2, 8, seed)} for seed in range(8)]
ADAMW = [{"foreach": True}, {"fused": True}, {"foreach": False, "fused": False}]
named = pytest.mark.parametrize("options", ADAMW, ids=["foreach", "fused", "loop"])


def build(kind="ema", momentum=None, **overrides):
    return llama(TERM % (kind, "" if momentum is None else f", momentum: {momentum}"), **overrides)


def copies(model):
    return [b.clone() for teacher in model.latent.teachers.values() for b in teacher.buffers()]


def weights(model):
    run = latent_state(model)
    return [w.detach().clone() for w in trained(run.backbone.decoder, run.backbone.layers[2:]).values()]


def train(model, steps, accumulation=1, options=None, after=None):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **(options or {}))
    batches = iter(BATCHES * 9)
    for _ in range(steps):
        for _ in range(accumulation):
            (model(**next(batches)).loss / accumulation).backward()
            if after:
                after()
        optimizer.step()
        optimizer.zero_grad()
    model(**BATCHES[0])  # a teacher follows at the next forward


def read(model, batch):
    """The teachers' states of one forward, by kind."""
    seen = []
    handle = latent_state(model).model.latent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(**batch)
    handle.remove()
    return {kind: view.states for kind, view in seen[0].teacher_views.items()}


@named
@pytest.mark.parametrize("accumulation", [1, 3])
def test_equals_a_hand_written_average(options, accumulation):
    model = build(momentum=0.9)
    by_hand, before = weights(model), weights(model)

    def after():  # the weights as they were at the forward that has just gone backward
        nonlocal before, by_hand
        now = weights(model)
        if not all(map(torch.equal, now, before)):
            by_hand = [0.9 * old + 0.1 * new for old, new in zip(by_hand, now, strict=True)]
        before = now

    train(model, 3, accumulation, options, after)
    after()
    assert latent_state(model).model.latent.step == 3
    for ours, want in zip(copies(model), by_hand, strict=True):
        torch.testing.assert_close(ours, want)


def test_momentum_1_freezes():
    model = build(momentum=1.0)
    first = weights(model)
    train(model, 2)
    assert not all(map(torch.equal, first, weights(model)))
    assert all(map(torch.equal, copies(model), first))


def test_momentum_0_is_the_network_itself_and_copies_nothing():
    model = build(momentum=0.0)
    train(model, 2)
    assert not copies(model)
    found = read(model, BATCHES[5])["ema"]
    assert not found[2].requires_grad
    torch.testing.assert_close(found[2], states(model, **BATCHES[5])[2])


def test_momentum_moves_to_its_last_value_along_half_a_cosine():
    teacher_config = TeacherConfig(0.9, final_momentum=1.0)
    assert [round(teacher_config.at(step, 10), 6) for step in (0, 5, 10, 11)] == [0.9, 0.95, 1.0, 1.0]
    with pytest.raises(ValueError, match="final_momentum needs the number of steps"):
        teacher_config.at(0, None)


def test_how_far_an_average_lags_is_told():
    model = build(momentum=0.9)
    model(**BATCHES[0])
    run = latent_state(model)
    assert teacher_health(run.attachment, None) == {"monitor/slow copy/momentum": 0.9, "monitor/slow copy/lag": 0}
    train(model, 3)
    own, slow = (torch.cat([each.flatten() for each in some]) for some in (weights(model), copies(model)))
    found = teacher_health(run.attachment, None)["monitor/slow copy/lag"]
    assert found == pytest.approx(float((own - slow).norm() / slow.norm()), rel=1e-4)
    assert found > 0
    assert run.monitoring.metrics.latest.items() >= {"monitor/slow copy/momentum": 0.9}.items()
    for other in (build(momentum=0.0), build("frozen")):
        other(**BATCHES[0])
        assert teacher_health(latent_state(other).attachment, None) == {}


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_states_equal_those_of_a_deep_copy(kind):
    model = build(kind, 0.5 if kind == "ema" else None)
    twin = copy.deepcopy(model)
    train(model, 2)
    if kind == "ema":
        run = latent_state(twin)
        with torch.no_grad():
            for own, slow in zip(
                trained(run.backbone.decoder, run.backbone.layers[2:]).values(), copies(model), strict=True
            ):
                own.copy_(slow)
    found = read(model, BATCHES[5])[kind]
    assert set(found) == {2}  # stopped at the deepest target
    assert not found[2].requires_grad
    torch.testing.assert_close(found[2], states(twin, **BATCHES[5])[2])


# peft 0.21 reads a name that transformers 5.23 deprecates
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def lora(kind, **kwargs):
    return adapted(build(kind), **kwargs)


def adapted(model, **kwargs):
    own = {"exclude_modules": r"(.*\.)?latent\..*", "modules_to_save": ["latent"]}
    config = LoraConfig(r=4, task_type="CAUSAL_LM", target_modules="all-linear", **own, **kwargs)
    return get_peft_model(model, config).train()


@peft_warns
def test_frozen_under_lora_is_the_network_without_adapters_and_copies_nothing():
    model = lora("frozen", init_lora_weights=False)
    plain = build("frozen")
    train(model, 2)
    torch.testing.assert_close(read(model, BATCHES[5])["frozen"][2], states(plain, **BATCHES[5])[2])
    assert not [name for name, _ in model.named_buffers() if ".teachers." in name]
    assert not torch.allclose(states(model, **BATCHES[5])[2], states(plain, **BATCHES[5])[2])


@peft_warns
def test_under_lora_the_average_holds_adapters_up_to_the_deepest_target():
    model = lora("ema")
    train(model, 1)
    run = latent_state(model)
    adapters = {n: p for n, p in run.backbone.decoder.named_parameters() if "lora_" in n}
    low = [p for n, p in adapters.items() if n.startswith(("layers.0.", "layers.1."))]
    held = copies(run.model)
    assert 0 < len(low) < len(adapters)
    assert [c.shape for c in held] == [p.shape for p in low]


@peft_warns
@pytest.mark.parametrize("adapters", [False, True])
def test_a_frozen_copy_is_renewed_every_few_steps(adapters):
    model = llama(TERM % ("frozen", ", refresh_every: 3"))
    model = adapted(model) if adapters else model
    run, passed, renewed = latent_state(model), [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(8):
        model(**BATCHES[step]).loss.backward()
        held = copies(run.model)
        passed.append(weights(model))
        renewed.append([torch.equal(copy, weight) for copy, weight in zip(held, passed[3 * (step // 3)], strict=True)])
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(all, renewed))
    assert all(not torch.equal(one, other) for one, other in zip(passed[0], passed[3], strict=True))


def test_goes_on_from_a_checkpoint():
    model, fresh = build(momentum=0.5), build(momentum=0.5, seed=1)
    train(model, 3)
    fresh.load_state_dict(model.state_dict())
    assert all(map(torch.equal, copies(model), copies(fresh)))
    for each in (model, fresh):
        train(each, 2)
    assert all(map(torch.equal, copies(model), copies(fresh)))
    assert model.latent.step == fresh.latent.step == 5


def test_loading_weights_is_no_step():
    model = build(momentum=0.5)
    model(**BATCHES[0])
    first = copies(model)
    model.load_state_dict(build(momentum=0.5, seed=1).state_dict(), strict=False)
    model(**BATCHES[0])
    assert model.latent.step == 0
    assert all(map(torch.equal, copies(model), first))


def test_a_half_precision_weight_has_a_full_precision_average_but_a_copy_in_its_own():
    weight = {"a.b": nn.Parameter(torch.ones(3, dtype=torch.bfloat16))}
    for momentum, dtype in ((0.999, torch.float32), (1.0, torch.bfloat16)):
        teacher = Teacher(TeacherConfig(momentum))
        teacher.start(weight)
        with torch.no_grad():
            weight["a.b"].fill_(2)
        teacher.update(weight)
        (copied,) = teacher.buffers()
        assert copied.dtype == dtype
        assert float(copied[0]) == pytest.approx(1.001 if momentum < 1 else 1)
        assert teacher.weights(weight)["a.b"].dtype == torch.bfloat16
        with torch.no_grad():
            weight["a.b"].fill_(1)


def test_a_restored_copy_follows_its_weight_to_the_device():
    teacher = Teacher(TeacherConfig(0.9))
    teacher.load_state_dict({"a": torch.ones(3)})
    teacher.start({"a": torch.ones(3, device="meta")})
    assert next(teacher.buffers()).device.type == "meta"


def test_a_step_is_counted_once_on_the_weights_of_its_own_model():
    mine, other, frozen = (nn.Parameter(torch.ones(2)) for _ in range(3))
    counted, flat = [], torch.ones(2, requires_grad=True)
    steps = StepTracker(nn.ParameterList([mine]), lambda: counted.append(1), [])

    def step(held):
        counted.clear()
        optimizer = torch.optim.SGD(held, lr=0.1)
        for weight in held:
            weight.grad = torch.ones(2)
        optimizer.step()
        return len(counted)

    assert step([mine]) == 0  # before the first forward
    for held, heard in (([other], 0), ([other, mine], 1), ([mine], 0), ([frozen], 0)):
        if heard:
            steps.begin()
        assert step(held) == heard, held
    steps.begin()
    assert step([flat]) == 0  # an engine writes the weights back after its optimizer
    steps.settle()
    steps.settle()
    assert len(counted) == 1


def test_several_optimizers_make_one_step():
    body, head = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    counted = []
    steps = StepTracker(nn.ParameterList([body, head]), lambda: counted.append((body[0].item(), head[0].item())), [])
    optimizers = [torch.optim.SGD([weight], lr=0.5) for weight in (body, head)]
    for _ in range(2):
        steps.begin()
        (body + head).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert counted == [(0.5, 0.5), (0.0, 0.0)]


def test_state_dict_changes_nothing():
    model = build(momentum=0.9)
    train(model, 2)
    model(**BATCHES[0]).loss.backward()
    want = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        for name, value in model.state_dict().items():
            assert torch.equal(value, want[name]), name
    assert model.latent.step == 2


def test_a_teacher_has_moved_when_the_optimizer_has_stepped():
    model = build(momentum=0.9)
    before = weights(model)
    model(**BATCHES[0]).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model.latent.step == 1
    for held, old, new in zip(copies(model), before, weights(model), strict=True):
        torch.testing.assert_close(held, 0.9 * old + 0.1 * new)
