"""Where the repository, its tests and the published reversal data are, whatever folder a test is in."""

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
_DATA = Path(os.environ.get("LATENTLM_REVERSAL_DATA", ROOT / ".." / "shared" / "data" / "reversal"))
PUBLISHED = _DATA / "name_description"
published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published files are not here (LATENTLM_REVERSAL_DATA)"
)
