"""Conversations, and a byte-level tokenizer that writes them with the frame of a known family."""

from functools import lru_cache

from tokenizers import AddedToken

from latentlm.data.text.tokenizers import bpe_tokenizer

CHATS = [
    [
        {"role": "user", "content": "What is two? Tell me."},
        {"role": "assistant", "content": "It is two. That was easy."},
        {"role": "user", "content": "And three?"},
        {"role": "assistant", "content": "Three."},
    ],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello there. Who are you?"},
        {"role": "assistant", "content": "A small model. I answer."},
    ],
    [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello. How can I help?"}],
]
EACH = "{% for message in messages %}"
TEMPLATES = {
    "chatml": EACH
    + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}",
    "default_system": "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    + EACH
    + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}",
    "llama3": "<|begin|>"
    + EACH
    + "{{ '<|start|>' + message['role'] + '<|head|>\\n\\n' + message['content'] | trim + '<|eot|>' }}{% endfor %}",
    "mistral": "<|begin|>" + EACH + "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] + '<eos>' }}"
    "{% else %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endif %}{% endfor %}",
    "plain": EACH + "{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}",
    "marked": EACH
    + "{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\\n' }}{% endfor %}",
}
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|begin|>", "<|start|>", "<|head|>", "<|eot|>")


@lru_cache
def tokenizer(template: str = "chatml", size: int = 400):
    """Fitted on the conversations; never change it."""
    texts = [message["content"] for chat in CHATS for message in chat]
    made = bpe_tokenizer(texts, size)
    made.add_special_tokens({"additional_special_tokens": [AddedToken(text, special=True) for text in SPECIAL]})
    made.chat_template = TEMPLATES[template]
    return made
