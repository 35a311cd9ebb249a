"""Turns are found in what any chat template writes, and the labels are those of the assistant."""

import pytest
from tiny_chats import CHATS, TEMPLATES, tokenizer

from latentlm.components.units import ROLES
from latentlm.data import Document, conversation, encode_dataset
from latentlm.data.text.chat_turns import chat_frame, headers, turns_of
from latentlm.data.text.encode import Encoder
from latentlm.data.text.encoding_report import DocumentError, EncodingReport

END = {"chatml": "<|im_end|>", "default_system": "<|im_end|>", "llama3": "<|eot|>", "mistral": "<eos>", "plain": "",
       "marked": "<|im_end|>"}  # fmt: skip


def encoded(messages, template, **options):
    return Encoder(tokenizer(template), 512, **options)(conversation(messages), EncodingReport())[0]


def labelled(example, template):
    """The labelled tokens as texts, run by run."""
    runs, tok = [[]], tokenizer(template)
    for token, label in zip(example.input_ids, example.labels, strict=True):
        if label == -100:
            runs.append([])
        else:
            assert label == token
            runs[-1].append(token)
    return [tok.decode(run) for run in runs if run]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
def test_the_turns_are_found_in_the_ids_alone(template, chat):
    if template == "mistral" and chat[0]["role"] == "system":
        pytest.skip("it writes system and user alike")
    tok = tokenizer(template)
    ids = tok(tok.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
    turns = turns_of(ids, tok)
    assert [tok.decode(ids[turn.first : turn.stop]).strip() for turn in turns][-len(chat) :] == [
        message["content"] for message in chat
    ]
    roles = [ROLES[turn.role] for turn in turns][-len(chat) :]
    assert roles == [message["role"] for message in chat]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
def test_the_assistant_is_labelled_with_the_token_that_ends_each_turn(template, chat):
    answers = [message["content"] for message in chat if message["role"] == "assistant"]
    found = labelled(encoded(chat, template), template)
    expected = [f"{answer}{END[template]}" for answer in answers]
    if template == "plain":  # nothing ends a turn but the end of the text
        assert [text.strip() for text in found] == [*answers, "<eos>"]
    else:
        assert [text.strip() for text in found] == expected
    last = labelled(encoded(chat, template, loss_on="last_assistant"), template)
    assert last == found[-2 if template == "plain" else -1 :]
    assert "".join(labelled(encoded(chat, template, loss_on="all"), template)).count(answers[0]) == 1


def test_labels_are_those_that_the_template_marks():
    tok = tokenizer("marked")
    for chat in CHATS:
        mask = tok.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        example = encoded(chat, "marked")
        there = len(mask["input_ids"])
        assert example.input_ids[:there] == mask["input_ids"]
        assert [label != -100 for label in example.labels[:there]] == [bool(m) for m in mask["assistant_masks"]]
        assert [m for m in encoded(chat, "chatml").labels if m != -100] == [m for m in example.labels if m != -100]


def test_a_prompt_is_not_labelled_and_a_completion_is_with_the_end_of_the_text():
    units = {"turn": [(0, 9, "user"), (9, 19, "assistant")]}
    document = Document("Two plus two? It is 4.", units={"turn": [(0, 13, "user"), (13, 22, "assistant")]})
    example = Encoder(tokenizer(), 64)(document, EncodingReport())[0]
    assert labelled(example, "chatml") == [" It is 4.<eos>"]
    assert units  # documents of one form only: conversations have no completion
    with pytest.raises(ValueError, match="no token of any document is to be predicted"):
        encode_dataset([document], tokenizer(), 64, loss_on="assistant")
    with pytest.raises(ValueError, match="loss_on: no token of any document"):
        encode_dataset([conversation(CHATS[0])], tokenizer(), 64, loss_on="completion")


def test_examples_without_a_label_are_counted(caplog):
    asked = [{"role": "user", "content": "Hello?"}]
    dataset = encode_dataset([conversation(asked), conversation(CHATS[2])], tokenizer(), 64)
    assert len(dataset) == 2
    assert "1 examples have no token to predict (loss_on)" in caplog.text
    with pytest.raises(ValueError, match="loss_on: no token"):
        encode_dataset([conversation(asked)], tokenizer(), 64)


def test_what_a_template_leaves_out_is_not_missed():
    """A template that strips what was thought from earlier turns, as those of reasoning models do."""
    tok = tokenizer("chatml", 401)
    tok.chat_template = (
        "{% for message in messages %}{% set text = message['content'].split('</think>')[-1] if not loop.last else "
        "message['content'] %}{{ '<|im_start|>' + message['role'] + '\\n' + text + '<|im_end|>\\n' }}{% endfor %}"
    )
    chat = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>hm</think>Yes."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "<think>well</think>No."},
    ]
    example = Encoder(tok, 256)(conversation(chat), EncodingReport())[0]
    said = tok.decode([label for label in example.labels if label != -100])
    assert said == "Yes.<|im_end|><think>well</think>No.<|im_end|>"


def test_tool_calls_are_part_of_the_turn():
    tok = tokenizer("chatml", 402)
    tok.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
        "{% for call in message.tool_calls or [] %}{{ '<call>' + call.function.name + '</call>' }}{% endfor %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
    )
    chat = [
        {"role": "user", "content": "Two and two?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "add"}}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "Four."},
    ]
    example = Encoder(tok, 256)(conversation(chat), EncodingReport())[0]
    said = tok.decode([label for label in example.labels if label != -100])
    assert said == "<call>add</call><|im_end|>Four.<|im_end|>"


def test_a_template_that_refuses_a_conversation_says_so_with_its_row():
    tok = tokenizer("chatml", 403)
    tok.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DocumentError, match=r"the chat template refuses it \(roles must alternate\)"):
        Encoder(tok, 64)(conversation(CHATS[0]), EncodingReport())


def test_the_frame_of_a_template_that_is_set_anew():
    tok = tokenizer("chatml", 404)
    assert headers(tok)[1] == tok("<|im_start|>user\n", add_special_tokens=False)["input_ids"]
    tok.chat_template = TEMPLATES["llama3"]
    assert tok.decode(headers(tok)[2]) == "<|begin|><|start|>assistant<|head|>\n\n"
    tok.chat_template = None
    assert chat_frame(tok) is None
    assert headers(tok) == {}
    assert turns_of([5, 6, 7], tok) == []
