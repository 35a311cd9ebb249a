"""What is written: equal to a loop without cache and batches, draws by their probability, stops and limits."""

import pytest
import torch
from hand_set_models import bigram_model, chat_tokenizer, random_model
from latentlm_evals.models.decoding import Draws, write_after
from transformers import GenerationConfig

from latentlm.data import word_tokenizer

TOKENIZER = chat_tokenizer(["some text to learn pairs from"])
PROMPTS = [TOKENIZER(text)["input_ids"] for text in ("a", "some text", "x" * 40, "to learn", "pairs from the text")]


def limits(num):
    return GenerationConfig(max_new_tokens=num, do_sample=False, num_beams=1)


def naive(model, ids, num, stop, noise=None):
    written = []
    for _ in range(num):
        with torch.no_grad():
            logits = model(torch.tensor([ids + written]), use_cache=False).logits[0, -1]
        written.append(int((logits if noise is None else noise(logits)).argmax()))
        if written[-1] in stop:
            break
    return written


def gumbel(seed, temperature):
    generator = torch.Generator().manual_seed(seed)

    def add(logits):
        uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
        return logits.double() / temperature - (-uniform.log()).log()

    return add


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_batches_do_not_change_what_is_written(batch_size, temperature):
    model, stop = random_model(len(TOKENIZER)), {TOKENIZER.eos_token_id, 77, 130}
    draws = Draws(temperature, [3, 4, 5, 6, 7]) if temperature else None
    written = write_after(model, TOKENIZER, PROMPTS, limits(12), batch_size, "", stop=sorted(stop), draws=draws)
    ends = 0
    for number, (prompt, found) in enumerate(zip(PROMPTS, written, strict=True)):
        noise = gumbel([3, 4, 5, 6, 7][number], temperature) if temperature else None
        ids = naive(model, prompt, 12, stop, noise)
        ends += ids[-1] in stop
        kept = ids[:-1] if ids[-1] in stop else ids
        assert (found.text, found.ended) == (TOKENIZER.decode(kept, skip_special_tokens=True), ids[-1] in stop)
    assert len({found.text for found in written}) > 1


def test_draws_have_the_probabilities_of_the_network():
    tokenizer = word_tokenizer(["a b c"])
    a, b, c = tokenizer("a b c")["input_ids"]
    logits = torch.full((len(tokenizer), len(tokenizer)), -30.0)
    logits[a, b], logits[a, c] = 1.0, 0.0
    model = bigram_model(logits)
    found = write_after(model, tokenizer, [[a]] * 4000, limits(1), 1000, "", draws=Draws(2.0, list(range(4000))))
    share = sum(written.text == "b" for written in found) / 4000
    right = torch.tensor([1.0, 0.0]).div(2).softmax(0)[0].item()
    assert share == pytest.approx(right, abs=4 * (right * (1 - right) / 4000) ** 0.5)


def test_the_cache_is_used_even_where_training_has_switched_it_off():
    model = random_model(len(TOKENIZER))
    model.config.use_cache = False
    lengths = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    write_after(model, TOKENIZER, PROMPTS[:1], limits(5), 1, "")
    assert lengths[0] == len(PROMPTS[0])
    assert set(lengths[1:]) == {1}


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_out_of_memory_is_one_line(monkeypatch, error):
    model = random_model(len(TOKENIZER))

    def full(**kwargs):
        raise error

    monkeypatch.setattr(model, "generate", full)
    with pytest.raises(ValueError, match=r"batch_size: 4 rows of \d+ tokens do not fit in memory; lower it"):
        write_after(model, TOKENIZER, PROMPTS, limits(5), 4, "")
    error.args = ("something else",)
    if not isinstance(error, torch.OutOfMemoryError):
        with pytest.raises(RuntimeError, match="something else"):
            write_after(model, TOKENIZER, PROMPTS, limits(5), 4, "")
