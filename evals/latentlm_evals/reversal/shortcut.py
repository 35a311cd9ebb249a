"""Shortcut questions for the published sets that have none of their own: is a question answered by its own entity?"""

from collections.abc import Sequence
from dataclasses import replace

from latentlm.data import Asks, Item, ParentChild, ThinkingBias


def echoes(data: Asks, items: Sequence[Item]) -> list[Item]:
    """The reverse ones of `items`, with the entity they ask about in place of the answer.

    ``parent_child``: the parent. ``thinking_bias``: name or description, in open questions; the options of multiple
    choice never hold what is asked about. ``instructions`` ask about a sentence, not an entity: no echo.

    Source:  the shortcut questions of arXiv:2602.02470, here for every set.
    Checked: tests/evals/reversal/test_reversal_in_context.py - every entity stands in its prompt and is not the answer.
    """
    reverse = [item for item in items if item.split == "reverse" and item.pool]
    if isinstance(data, ParentChild):
        entity = {item: item.fact.split(" | ")[1] for item in reverse}
    elif isinstance(data, ThinkingBias):
        described = {item.fact: item.answer.strip() for item in items if item.pool and item.asks == "description"}
        entity = {item: described[item.fact] if item.asks == "name" else item.fact for item in reverse}
    else:
        return []
    return [
        replace(item, split="shortcut", answer=f" {entity[item]}", pool=f"{item.pool}/shortcut", also=())
        for item in reverse
    ]
