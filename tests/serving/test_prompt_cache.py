"""The prompt cache behind the server: what it saves is counted, and no answer changes."""

from __future__ import annotations

import pytest

from genrec.decoders.onnx_export import export_bundle
from serving.live_bundle import LiveBundle
from tests.genrec.onnx_models import native_bundle
from tests.serving.toy_server import Server, index_of_toys

ASK = "/v1/recommendations"
MIB = 2**20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A native model with random weights, exported: a decoder that can start from what it remembers."""
    path = native_bundle(tmp_path_factory.mktemp("bundles") / "toy", index_of_toys())
    export_bundle(path)
    return path


def answers(server: Server, histories: list[list[str]]) -> list[list[tuple[str, float]]]:
    with server as client:
        found = [client.post(ASK, json={"history": one, "num_results": 8}).json() for one in histories]
    return [[(item["item_id"], item["score"]) for item in one["items"]] for one in found]


def test_a_second_request_with_one_more_item_reuses_the_first(bundle):
    histories = [["i1", "i5", "i9"], ["i1", "i5", "i9", "i13"], ["i2"]]
    plain = Server(LiveBundle.load(bundle))
    cached = Server(LiveBundle.load(bundle, prompt_cache_bytes=MIB))
    before, after = answers(plain, histories), answers(cached, histories)
    for old, new in zip(before, after, strict=True):
        assert [item for item, _ in new] == [item for item, _ in old]
        assert [score for _, score in new] == pytest.approx([score for _, score in old], abs=1e-5)
    # What warmed the model up is not counted.
    assert plain.metric("genrec_prompt_cache_prompts_total", outcome="miss") == 0
    assert cached.metric("genrec_prompt_cache_prompts_total", outcome="hit") == 1
    assert cached.metric("genrec_prompt_cache_prompts_total", outcome="miss") == 2
    assert cached.metric("genrec_prompt_cache_positions_total", what="reused") == 3
    assert cached.metric("genrec_prompt_cache_entries") == 3
    assert 0 < cached.metric("genrec_prompt_cache_bytes") <= MIB


def test_a_reload_begins_with_an_empty_cache(bundle):
    server = Server(
        LiveBundle.load(bundle, prompt_cache_bytes=MIB),
        lambda verify: LiveBundle.load(bundle, verify=verify, prompt_cache_bytes=MIB),
    )
    with server as client:
        for reload in (False, True, False):
            if reload:
                assert client.post("/v1/admin/reload", json={}).status_code == 200
            client.post(ASK, json={"history": ["i1", "i5"]})
    assert server.metric("genrec_prompt_cache_prompts_total", outcome="hit") == 1  # after the reload only
    assert server.metric("genrec_prompt_cache_prompts_total", outcome="miss") == 2
    assert server.metric("genrec_prompt_cache_entries") == 1
