"""Documents read a second time, backwards: what augmenting the data does about reversal."""

import itertools


def backwards(document: dict) -> dict:
    """The document with its words in reverse order and its spans as they are.

        w_1 .. w_i A w_j .. w_k B w_l .. w_n   ->   w_n .. w_l B w_k .. w_j A w_i .. w_1

    A, B are spans, w words between blanks, all joined by one blank. What the document says of its spans by number
    (named, cuts, tails, strangers, related) stays true of them.

    Source:    reverse training, entity-preserving, Golovneva et al. 2024, arXiv 2403.13799. Differs: spans are those of
               the data, where they ask a detector for names.
    Checked:   tests/data/text/test_reverse_training.py - the equation, spans, twice is once but for blanks.

    Raises:
        ValueError: if the document is a conversation, or spans overlap.
    """
    if "messages" in document:
        raise ValueError("reverse_training: turns of a conversation have an order; use texts, or leave it out")
    text, spans = document["text"], document.get("spans", [])
    ordered = sorted(range(len(spans)), key=lambda number: spans[number])
    if any(spans[one][1] > spans[two][0] for one, two in itertools.pairwise(ordered)):
        raise ValueError(f"reverse_training: spans of {text[:60]!r} overlap; mark one of them, or leave it out")
    parts: list[tuple[int | None, str]] = []
    done = 0
    for number in ordered:
        start, end = spans[number]
        parts += [(None, word) for word in text[done:start].split()] + [(number, text[start:end])]
        done = end
    parts += [(None, word) for word in text[done:].split()]
    turned, places, place = parts[::-1], {}, 0
    for number, words in turned:
        if number is not None:
            places[number] = [place, place + len(words)]
        place += len(words) + 1
    found = {**document, "text": " ".join(words for _, words in turned)}
    return {**found, "spans": [places[number] for number in range(len(spans))]} if spans else found
