"""All of these tests share one new cache folder, and know when a compiled function ran as plain MLX after all."""

import mlx.core as mx
import pytest

import convjit


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("CONVJIT_DISABLE", raising=False)
        convjit.enable()
        yield


@pytest.fixture(autouse=True)
def seed():
    mx.random.seed(7)
