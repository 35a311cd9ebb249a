"""The published reversal data, where they are: tests that need them skip with a reason elsewhere."""

import os
from pathlib import Path

import pytest
from paths import ROOT

DEFAULT = ROOT / ".." / "shared" / "data" / "reversal"
FOLDER = Path(os.environ.get("LATENTLM_REVERSAL_DATA", DEFAULT)) / "name_description"
published = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published files are not here (LATENTLM_REVERSAL_DATA)")
