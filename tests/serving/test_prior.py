"""The history prior over HTTP, from an exported bundle: the answers of the library in torch, and the reasons."""

from __future__ import annotations

import pytest

from genrec.decoders.onnx_export import export_bundle
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.recommender import Recommender
from genrec.training.pretrain import TrainSettings
from genrec.training.train_bundle import train_bundle
from serving.live_bundle import LiveBundle
from tests.serving.toy_server import Server
from tests.toy import toy_histories, toy_index

ASK = "/v1/recommendations"
HISTORY = ["i8", "i12"]  # users of the toy go four items on


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Counts know more than a model of three steps: the prior weighs something."""
    out = tmp_path_factory.mktemp("prior") / "toy"
    assert train_bundle(toy_index(), toy_histories(), out, settings=TrainSettings(steps=3)).prior_weight > 0
    return out


@pytest.fixture(scope="module")
def in_torch(bundle):
    """The library before there is an export."""
    return Recommender.load(bundle)


@pytest.fixture(scope="module")
def client(bundle, in_torch):
    export_bundle(bundle, checks=1)
    live = LiveBundle.load(bundle, prompt_cache_bytes=1 << 20)
    with Server(live) as client:
        yield client


def asked(client, **decoding) -> dict:
    body = {"history": HISTORY, "num_results": 5, "explain": True, "decoding": decoding}
    answer = client.post(ASK, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("prior", [None, "history", "none", 0.25])
def test_served_from_the_export_equals_torch_in_process(client, in_torch, prior):
    expected = in_torch.recommend(HISTORY, k=5, prior=prior)
    answer = asked(client, **({} if prior is None else {"prior": prior}))
    assert [one["item_id"] for one in answer["items"]] == [one.item_id for one in expected.items]
    assert [one["score"] for one in answer["items"]] == pytest.approx(
        [one.score for one in expected.items], abs=1e-4
    )


def test_it_is_on_by_default_and_matters(client, bundle):
    assert isinstance(LiveBundle.load(bundle).recommender.decoder, OnnxNativeDecoder)
    usual, alone = asked(client), asked(client, prior="none")
    assert usual["items"] == asked(client, prior="history")["items"]
    assert usual["items"][0]["item_id"] == "i16"
    assert [one["score"] for one in usual["items"]] != [one["score"] for one in alone["items"]]


def test_an_item_says_what_it_owes_to_whom(client):
    first = asked(client)["items"][0]["explanation"]
    assert 0.5 < first["prior_part"] <= 1
    assert first["because_of"] == "i12"
    for one in asked(client, prior="none")["items"]:
        assert one["explanation"]["prior_part"] is None
        assert one["explanation"]["because_of"] is None


@pytest.mark.parametrize("prior", ["everything", -0.1, 1, True, [0.5]])
def test_another_prior_is_refused(client, prior):
    answer = client.post(ASK, json={"history": HISTORY, "decoding": {"prior": prior}})
    assert answer.status_code == 400
    assert "prior" in answer.text
