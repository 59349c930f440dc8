"""``POST /v1/chat``: what was excluded stays so, nothing comes twice, reasons cite the history."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from genrec.recipes.chatrec import Chat
from serving.logs import JsonLines
from tests.serving.toy_server import Connection, GatedDecoder, Server, index_of_toys, toy_live

CHAT = "/v1/chat"
HISTORY = ["i3", "i7"]
DEEP = "not " * 2000 + "1"
GENRE = {f"i{row}": ("comedy", "drama", "horror", "western")[row % 4] for row in range(40)}


@pytest.fixture(scope="module")
def server():
    return Server(max_messages=30, max_results=10, api_keys=())


@pytest.fixture(scope="module")
def client(server):
    with server as client:
        yield client


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def talked(client, *said: str, **more: Any) -> list[dict[str, Any]]:
    """The answers of a whole conversation, every one sent with all that was said before."""
    messages, answers = [], []
    for text in said:
        messages.append(user(text))
        answer = client.post(CHAT, json={"messages": messages, "history": HISTORY, "num_results": 3, **more})
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        messages.append(answer.json()["message"])
    return answers


def test_a_wish_holds_on_all_later_turns_and_nothing_comes_twice(client):
    answers = talked(client, "Something good, no horror.", "More!", "Why the first?", "And others?", "More.")
    shown = [item["item_id"] for one in answers for item in one["items"]]
    assert len(shown) == len(set(shown)) == 12
    assert not set(shown) & set(HISTORY)
    assert "horror" not in {GENRE[one] for one in shown}
    assert all(one["held"] == [{"field": "genre", "value": "horror", "excluded": True}] for one in answers)
    assert [one["kind"] for one in answers] == ["recommend", "recommend", "explain", "recommend", "recommend"]
    why = answers[2]
    assert [one["item_id"] in HISTORY for one in why["evidence"]] == [True]
    assert f"[{why['evidence'][0]['title']}]" in why["message"]["content"]
    assert why["message"]["items"] == []


def test_a_conversation_sent_again_is_the_one_that_was_remembered(server, client):
    """The state is made again from the turns: the same as that of a chat which lives on."""
    said = [
        "I loved The mirror horror. No horror!",
        "Why?",
        "Only westerns",
        "More",
        "westerns are fine, no drama",
    ]
    lives = Chat(server.engine.live.recommender, HISTORY, k=3)
    for text, answer in zip(said, talked(client, *said), strict=True):
        expected = lives.turn(text)
        assert answer["message"]["content"] == expected.text
        assert [one["item_id"] for one in answer["items"]] == expected.ids
        assert [one["value"] for one in answer["held"]] == [one.value for one in lives.state.wishes]


def test_filters_of_the_request_hold_beside_what_is_said(client):
    where = "year >= 2000"
    (answer,) = talked(
        client, "no western", filter={"where": where, "exclude": ["i21"]}, return_fields=["year"]
    )
    assert answer["items"]
    for item in answer["items"]:
        assert item["fields"] == {"year": 1980 + int(item["item_id"][1:])}
        assert item["fields"]["year"] >= 2000
        assert GENRE[item["item_id"]] != "western"
        assert item["item_id"] != "i21"
    (none,) = talked(client, "only westerns", filter={"where": {"genre": ["drama"]}})
    assert none["items"] == []
    assert none["message"]["content"].startswith("Nothing else passes")


def test_unknown_ids_are_named_and_a_new_user_is_answered(client):
    answer = client.post(
        CHAT, json={"messages": [user("Hello")], "history": ["nobody", "i1", "nobody"]}
    ).json()
    assert answer["missing_ids"] == ["nobody"]
    assert len(answer["items"]) == 5
    assert client.post(CHAT, json={"messages": [user("Hello")]}).json()["items"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_field", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [user(" \n ")]}, 400, "invalid_value", "messages.0.content"),
        ({"messages": [user("\x1c")]}, 422, "invalid_request", None),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid_value", "messages.0"),
        ({"messages": [{**user("x"), "items": ["i1"]}]}, 400, "unknown_field", "messages.0.items"),
        ({"messages": [user("x")], "stream": True}, 400, "unknown_field", "stream"),
        ({"messages": [user("x"), {"role": "assistant", "content": ""}]}, 422, "invalid_request", "messages"),
        ({"messages": [user("x")] * 31}, 400, "invalid_value", "messages"),
        (
            {"messages": [{"role": "assistant", "content": "x", "items": ["i1"] * 11}, user("x")]},
            400, "invalid_value", "messages.0.items",
        ),
        ({"messages": [user("x")], "num_results": 11}, 400, "invalid_value", "num_results"),
        ({"messages": [user("x")], "return_fields": ["x"]}, 422, "unknown_return_field", "return_fields"),
        ({"messages": [user("x")], "filter": {"where": "x > 1"}}, 422, "invalid_filter", "filter.where"),
        ({"messages": [user("no horror")], "filter": {"where": DEEP}}, 422, "invalid_filter", "filter.where"),
    ],
)  # fmt: skip
def test_errors_are_those_of_every_route(client, body, status, code, param):
    answer = client.post(CHAT, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


def test_the_description_has_the_limits(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    asked = schemas["ChatRequest"]["properties"]
    assert (asked["messages"]["maxItems"], asked["num_results"]["maximum"]) == (30, 10)
    assert schemas["ToldMessage"]["properties"]["items"]["maxItems"] == 10


def test_a_key_is_asked_for():
    with Server(api_keys=("a-key-of-sixteen-or-more",)) as client:
        assert client.post(CHAT, json={"messages": [user("x")]}).status_code == 401


def test_the_log_says_what_the_turn_was_and_not_what_was_said(client, caplog):
    with caplog.at_level(logging.INFO, logger="genrec.serving"):
        client.post(CHAT, json={"messages": [user("a secret of mine")], "user_id": "u1"})
    (line,) = [JsonLines().format(one) for one in caplog.records if "/v1/chat" in JsonLines().format(one)]
    facts = json.loads(line)
    assert (facts["kind"], facts["items"], facts["user_id"]) == ("recommend", 5, "u1")
    assert "secret" not in line


def gated(**settings: Any) -> tuple[Server, GatedDecoder]:
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    return Server(toy_live(decoder), **settings), decoder


def test_a_full_queue_and_a_deadline_are_told_as_everywhere():
    server, decoder = gated(queue_size=1, max_requests=1, default_timeout_ms=300)
    body = json.dumps({"messages": [user("Hello")]}).encode()

    async def story() -> None:
        decoder.gate.clear()
        first = Connection(server, CHAT)
        first.send(body)
        assert await asyncio.to_thread(decoder.entered.acquire, timeout=10)
        second = Connection(server, CHAT)  # waits
        second.send(body)
        await asyncio.sleep(0.05)
        third = Connection(server, CHAT)
        third.send(body)
        status, refused = await third.answer()
        assert (status, refused["error"]["code"]) == (429, "queue_full")
        assert third.header(b"retry-after")
        for late in (first, second):
            status, told = await late.answer()
            assert (status, told["error"]["code"]) == (504, "deadline_exceeded")
        decoder.gate.set()

    try:
        asyncio.run(story())
    finally:
        decoder.gate.set()
        server.engine.close()
