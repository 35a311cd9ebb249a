"""The releases that pyproject.toml admits are those that were run."""

import re

from packaging.version import Version
from paths import ROOT


def test_the_lowest_releases_admitted_are_the_lowest_that_were_run():
    asked = dict(re.findall(r'"([\w-]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    lines = (ROOT / "scripts" / "floors" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    run = dict(line.split("==") for line in lines if not line.startswith("#"))
    del run["numpy"]  # comes with the others
    assert {name: Version(asked[name]) for name in run} == {name: Version(release) for name, release in run.items()}
