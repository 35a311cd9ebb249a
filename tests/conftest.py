import pytest
from gloo import Pool
from hypothesis import settings

# few and repeatable examples: the laws are checked on every run, the search for odd inputs is not the point
settings.register_profile("quick", max_examples=10, deadline=None, derandomize=True)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """Two gloo ranks for the whole session: `pool.run(function, *args)` -> result per rank."""
    pool = Pool(tmp_path_factory.mktemp("gloo"))
    yield pool
    pool.close()
