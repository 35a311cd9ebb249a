"""The reference page: every key of a dataclass tree as Markdown, each part once, where it is met first."""

from latentlm.config.docs import read_docs
from latentlm.config.reference import Key, keys_of, walk
from latentlm.config.schema import kind_of


def reference_page(root: type, head: str) -> str:
    """The page: `head`, then a section for each block and for each key below it that holds parts."""
    lines, seen = [head.strip(), ""], {root}
    tops = {key.path: key for key in keys_of(root)}
    for key in walk(root):
        new = [part for part in key.kinds if part not in seen]
        seen.update(new)
        if key.path in tops:
            lines += [f"## {key.path}", "", *_paragraph(key.meaning)]
        elif new:
            lines += [f"### `{key.path}`", "", *_paragraph(key.meaning)]
        for part in new:
            lines += _part(part, heading=len(key.kinds) > 1)
    return "\n".join(lines).strip() + "\n"


def _part(part: type, heading: bool) -> list[str]:
    docs = read_docs(part)
    lines = [f"#### {kind_of(part)}", ""] if heading else []
    lines += _paragraph(docs.summary)
    if docs.equation:
        lines += ["```text", *docs.equation.splitlines(), "```", ""]
    for paragraph in docs.prose:
        lines += _paragraph(paragraph)
    if keys := keys_of(part):
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *map(_row, keys), ""]
    return lines + (_paragraph(f"Source: {docs.labels['Source']}") if "Source" in docs.labels else [])


def _row(key: Key) -> str:
    cells = [f"`{key.path}`", key.choices, f"`{key.default}`" if key.default else "", key.meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _paragraph(text: str) -> list[str]:
    return [text[:1].upper() + text[1:], ""] if text else []
