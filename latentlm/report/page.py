"""The page itself: one file, pictures inside, nothing loaded from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from latentlm.report import eval_sections as tables
from latentlm.report import sections
from latentlm.report.run_record import Run

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d9dee3; --paper: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: white;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }
nav { color: var(--soft); font-size: .9rem; }
nav a { color: #0969da; text-decoration: none; margin-right: 1rem; }
img { display: block; width: 100%; min-width: 34rem; max-width: 56rem; height: auto; }
pre { background: var(--paper); padding: .75rem; border-radius: 6px; overflow-x: auto;
  font-size: .8rem; line-height: 1.45; }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { font-size: .85em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { font-weight: 600; background: var(--paper); vertical-align: bottom; white-space: normal; }
.text { text-align: left; }
td.text:has(code) { white-space: normal; min-width: 9rem; }
small { color: var(--soft); }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.25rem; }
.card { min-width: 0; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; }
.missing { background: #fff8e6; border-left: 3px solid #d4a72c; padding: .4rem .75rem; margin: .5rem 0;
  font-size: .9rem; }
.note { color: var(--soft); font-size: .85rem; margin: .25rem 0; }
.good { color: #116329; font-weight: 600; }
.bad { color: #b3261e; font-weight: 600; }
"""


def render(runs: Sequence[Run], pictures: Mapping[str, bytes]) -> str:
    """HTML of the report."""
    parts = {
        "Overview": sections.overview(runs),
        "Warnings": sections.warnings(runs),
        "Reversal": sections.reversal(runs, _picture(pictures, "reversal", "Exact match with 95 % intervals")),
        "Probes": tables.probes(
            runs,
            _picture(pictures, "probe", "Depth by property: what a linear probe reads off")
            + _picture(pictures, "profiles", "Accuracy of the probes over depth with 95 % bands"),
        ),
        "Transfer of readouts": tables.transfer(_picture(pictures, "transfer", "Readouts used in other contexts")),
        "Vision": tables.vision(runs, _picture(pictures, "vision", "Depth by factor: what a linear map reads off")),
        "Other scores": tables.others(runs),
        "Losses": sections.losses(runs, _picture(pictures, "losses", "Loss curves of every term")),
        "Rank over depth": sections.depth(
            runs, _picture(pictures, "depth", "Effective rank of hidden states over depth")
        ),
        "Monitors": sections.monitors(runs),
        "Recipes": sections.recipes(runs),
        "Where the runs come from": sections.origin(runs),
    }
    parts = {title: html for title, html in parts.items() if html}
    anchors = {title: title.lower().replace(" ", "-") for title in parts}
    links = "".join(f'<a href="#{anchor}">{title}</a>' for title, anchor in anchors.items())
    body = "".join(
        f'<section id="{anchors[title]}"><h2>{title}</h2>{html}</section>\n' for title, html in parts.items()
    )
    title = escape("latentlm: " + ", ".join(run.label for run in runs))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
        f"<body>\n<h1>{title}</h1>\n<nav>{links}</nav>\n{body}</body></html>\n"
    )


def _picture(pictures: Mapping[str, bytes], name: str, alt: str) -> str:
    if name not in pictures:
        return ""
    data = base64.b64encode(pictures[name]).decode("ascii")
    return f'<div class=scroll><img alt="{alt}" src="data:image/png;base64,{data}"></div>'
