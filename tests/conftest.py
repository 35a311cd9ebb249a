import gc

import jaxtyping
import pytest
from accelerate.state import GradientState
from gloo_pool import Pool
from hypothesis import HealthCheck, settings

# few and repeatable examples: the laws are checked on every run, the search for odd inputs is not the point;
# no clock: on a busy machine any draw may be slow
settings.register_profile(
    "quick", max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("quick")


@pytest.fixture(autouse=True, scope="module")
def small_heap():
    """Each training collects garbage, which takes a second among the million objects of imported libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def whole_steps():
    """A test that fails within an accumulation must not leave later ones without optimizer steps."""
    yield
    GradientState()._set_sync_gradients(True)


@pytest.fixture
def unchecked_types():
    """No check of types by jaxtyping: what the code itself says to a wrong value is tested."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """Two gloo ranks for the whole session: `pool.run(function, *args)` -> result per rank."""
    pool = Pool(tmp_path_factory.mktemp("gloo"))
    yield pool
    pool.close()
