"""The four lines at the end of the demo, from the results of its two runs: python scripts/demo_summary.py FOLDER."""

import json
import sys
from pathlib import Path

ORDERS = {
    "same": (("a_to_b", "description"), ("b_to_a", "name")),
    "reverse": (("b_to_a", "description"), ("a_to_b", "name")),
}


def summary(folder: Path) -> str:
    """Question, next-token, with the term, where the rest is."""
    return "\n".join(
        [
            'Trained on "Vubel Zupack is known as the eager tender miller": who is the eager tender miller?',
            f"  next-token loss alone  {scores(folder / 'next_token')}",
            f"  with a latent term     {scores(folder / 'reversal')}",
            f"  report: {folder}/report.html   tables: {folder}/next_token.txt, {folder}/reversal.txt",
        ]
    )


def scores(run: Path) -> str:
    """Per cent of right answers of one run, in either order."""
    results = json.loads((run / "eval" / "reversal.json").read_text(encoding="utf-8"))["results"]
    cells = {
        order: {
            asked: results[f"reversal/description_{group}/{order}/{asked}"]["exact,none"] for group, asked in subsets
        }
        for order, subsets in ORDERS.items()
    }
    same, reverse = cells["same"], cells["reverse"]
    # what was not learned forwards cannot be missed backwards
    doubt = "" if min(same.values()) >= 0.9 else "   (not learned yet in the order seen: the rest does not count)"
    return (
        f"in the order seen {50 * sum(same.values()):3.0f} %   in the other order: "
        f"names {100 * reverse['name']:3.0f} %, descriptions {100 * reverse['description']:3.0f} %{doubt}"
    )


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
