"""All of these tests share one new cache folder."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
