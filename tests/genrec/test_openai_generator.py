"""Text from an OpenAI-compatible endpoint: a small server that answers and misbehaves, and a real one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from genrec.openai_generator import Api, EndpointSettings, OpenAiGenerator
from genrec.text_generator import GeneratedText, TextGenerator
from index.errors import EndpointError, RequestError
from tests.genrec.completions_server import (
    CompletionsServer,
    Reply,
    Seen,
    chat_reply,
    completion_reply,
    completions_server,
)

pytest.importorskip("openai", reason="the extra openai is not installed")
KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    with completions_server() as running:
        yield running


@pytest.fixture
def generator(server: CompletionsServer) -> Iterator[OpenAiGenerator]:
    with OpenAiGenerator("toy", EndpointSettings(retries=1), base_url=server.base_url, api_key=KEY) as made:
        yield made


def texts_of(answers: list[list[GeneratedText]]) -> list[list[str]]:
    return [[one.text for one in each] for each in answers]


# --- what is asked --------------------------------------------------------------------------------------


def test_a_chat_is_asked_as_the_api_says(server: CompletionsServer) -> None:
    server.answer = lambda seen, number: chat_reply(" cosy lamp\n", "warm lamp. And", finish="length")
    settings = EndpointSettings(system="You write queries.")
    with OpenAiGenerator("toy", settings, base_url=server.base_url, api_key=KEY) as generator:
        assert isinstance(generator, TextGenerator)
        [found] = generator.generate(["A query:"], 2, max_tokens=5, temperature=0.5, stop=["."])
    assert found == [GeneratedText("cosy lamp", "length"), GeneratedText("warm lamp", "length")]
    [seen] = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.authorization == f"Bearer {KEY}"
    system = {"role": "system", "content": "You write queries."}
    assert seen.body == {
        "model": "toy",
        "messages": [system, {"role": "user", "content": "A query:"}],
        "n": 2,
        "max_tokens": 5,
        "temperature": 0.5,
        "stop": ["."],
    }


def test_a_plain_model_goes_on_with_the_prompt(server: CompletionsServer) -> None:
    server.answer = lambda seen, number: completion_reply("lamp")
    with OpenAiGenerator(
        "toy", EndpointSettings("completions"), base_url=server.base_url, api_key=KEY
    ) as generator:
        assert generator.generate(["A query:"]) == [[GeneratedText("lamp")]]
    [seen] = server.seen
    assert seen.path == "/v1/completions"
    assert seen.body == {"model": "toy", "prompt": "A query:", "max_tokens": 64, "temperature": 1.0}


def test_base_url_and_key_come_from_the_environment(server: CompletionsServer) -> None:
    environment = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY}
    with mock.patch.dict(os.environ, environment), OpenAiGenerator("toy") as generator:
        assert texts_of(generator.generate(["x"])) == [["hello"]]
    assert server.seen[0].authorization == f"Bearer {KEY}"


def test_an_endpoint_that_gives_one_text_at_a_time_is_asked_again(
    server: CompletionsServer, generator: OpenAiGenerator
) -> None:
    server.answer = lambda seen, number: chat_reply(f"text {number}")
    assert texts_of(generator.generate(["x"], 3)) == [["text 0", "text 1", "text 2"]]
    assert [seen.body.get("n") for seen in server.seen] == [3, 2, None]


def test_one_that_gives_too_many_is_cut(server: CompletionsServer, generator: OpenAiGenerator) -> None:
    server.answer = lambda seen, number: chat_reply("a", "b", "c")
    assert texts_of(generator.generate(["x"], 2)) == [["a", "b"]]


def test_the_most_probable_text_is_asked_for_once(
    server: CompletionsServer, generator: OpenAiGenerator
) -> None:
    assert texts_of(generator.generate(["x"], 3, temperature=0)) == [["hello"] * 3]
    assert len(server.seen) == 1


def test_answers_stand_in_the_order_of_their_prompts(
    server: CompletionsServer, generator: OpenAiGenerator
) -> None:
    def answer(seen: Seen, number: int) -> Reply:
        reply = chat_reply(seen.body["messages"][0]["content"].upper())
        reply.delay = 0.05 if number < 4 else 0.0  # the first to be asked answer last
        return reply

    server.answer = answer
    prompts = [f"p{number}" for number in range(12)]
    assert texts_of(generator.generate(prompts)) == [[prompt.upper()] for prompt in prompts]
    assert generator.generate([]) == []


# --- what goes wrong ------------------------------------------------------------------------------------


def test_a_busy_endpoint_is_tried_again(server: CompletionsServer, generator: OpenAiGenerator) -> None:
    for status in (429, 500, 503):
        before = len(server.seen)
        server.answer = lambda seen, number, before=before, status=status: (  # type: ignore[misc]
            chat_reply("at last") if number > before else Reply({}, status, {"retry-after-ms": "1"})
        )
        assert texts_of(generator.generate(["x"])) == [["at last"]]
        assert len(server.seen) == before + 2


@pytest.mark.parametrize(
    ("status", "tries", "message"),
    [
        (400, 1, "expected model 'toy' at .* to accept the request, got 400: too long"),
        (401, 1, "accept the key in OPENAI_API_KEY, got 401: too long; set a valid key"),
        (403, 1, "to be open to this key, got 403"),
        (404, 1, "got 404: too long; check the name of the model, the base URL"),
        (422, 1, "to accept the request, got 422"),
        (429, 2, r"got 429 in each of 2 tries: too long; wait, ask for less at once \(parallel=8\)"),
        (500, 2, "got 500 in each of 2 tries: too long"),
    ],
)
def test_refusals_are_explained(
    server: CompletionsServer, generator: OpenAiGenerator, status: int, tries: int, message: str
) -> None:
    body = {"error": {"message": "too long", "type": "x", "code": None}}
    server.answer = lambda seen, number: Reply(body, status, {"retry-after-ms": "1"})
    with pytest.raises(EndpointError, match=message) as caught:
        generator.generate(["x"])
    assert len(server.seen) == tries
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply("<html>It works!</html>", headers={"content-type": "text/html"}),
            "got no choices: <html>It works",
        ),
        (Reply("<html>", headers={"content-type": "application/json"}), "got JSONDecodeError"),
        (Reply({"detail": "Hello"}), "got no choices"),
        (Reply([1]), "got no choices"),
        (Reply({"choices": []}), "got no choices"),
        (
            Reply({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}),
            "a choice without text",
        ),
        (Reply({"choices": [{"text": "of the other API"}]}), "a choice without text"),
        (Reply({"choices": ["text"]}), "a choice without text"),
    ],
)
def test_answers_of_another_form_are_refused(
    server: CompletionsServer, generator: OpenAiGenerator, reply: Reply, message: str
) -> None:
    server.answer = lambda seen, number: reply
    with pytest.raises(
        EndpointError, match=f"expected an answer of the chat API.*{message}.*usually ends in /v1"
    ):
        generator.generate(["x"])


def test_one_that_does_not_answer_in_time_is_given_up(server: CompletionsServer) -> None:
    slow = chat_reply("too late")
    slow.delay = 0.6
    server.answer = lambda seen, number: slow
    settings = EndpointSettings(timeout=0.2, retries=0)
    with (
        OpenAiGenerator("toy", settings, base_url=server.base_url, api_key=KEY) as generator,
        pytest.raises(EndpointError, match=r"to answer within 0\.2 s, got nothing in 1 try"),
    ):
        generator.generate(["x"])


def test_one_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = EndpointSettings(retries=0)
    with (
        OpenAiGenerator("toy", settings, base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY) as generator,
        pytest.raises(EndpointError, match=rf"an endpoint at http://127.0.0.1:{port}/v1/, got no connection"),
    ):
        generator.generate(["x"])


def test_what_has_not_begun_is_not_asked_once_one_failed(server: CompletionsServer) -> None:
    server.answer = lambda seen, number: Reply({"error": {"message": "no"}}, 401)
    settings = EndpointSettings(parallel=2)
    with (
        OpenAiGenerator("toy", settings, base_url=server.base_url, api_key=KEY) as generator,
        pytest.raises(EndpointError, match="401"),
    ):
        generator.generate(["x"] * 50)
    assert len(server.seen) < 20


def test_no_key_is_an_error_that_says_where_it_goes() -> None:
    with mock.patch.dict(os.environ):
        os.environ.pop("OPENAI_API_KEY", None)
        with pytest.raises(
            EndpointError, match=r"environment variable OPENAI_API_KEY, got none.*OPENAI_API_KEY=local"
        ):
            OpenAiGenerator("toy", base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("n", "max_tokens", "temperature", "stop", "message"),
    [
        (0, 5, 1.0, [], "expected n >= 1"),
        (1, 0, 1.0, [], "max_tokens=0"),
        (1, 5, -1.0, [], "temperature >= 0, got -1"),
        (1, 5, float("inf"), [], "finite temperature"),
        (1, 5, 1.0, ".", "expected a list of stop strings"),
        (1, 5, 1.0, [""], "that are not empty"),
    ],
)
def test_wishes_that_make_no_sense_are_refused_before_anything_is_asked(
    server: CompletionsServer,
    generator: OpenAiGenerator,
    n: int,
    max_tokens: int,
    temperature: float,
    stop: list[str],
    message: str,
) -> None:
    with pytest.raises(RequestError, match=message):
        generator.generate(["x"], n, max_tokens=max_tokens, temperature=temperature, stop=stop)
    assert server.seen == []


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RequestError, match="api of chat, completions, got 'talk'"):
        EndpointSettings("talk")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="got timeout=0"):
        EndpointSettings(timeout=0)


# --- a real server --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    base_url: str
    model: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`transformers serve` with a checkpoint made here."""
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi")
    pytest.importorskip("uvicorn", reason="transformers serve needs uvicorn")
    directory = tmp_path_factory.mktemp("served")
    _save_checkpoint(directory / "toy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(directory / "home"),
        "OMP_NUM_THREADS": "1",
    }
    log = (directory / "log").open("w")
    command = Path(sys.executable).with_name("transformers")
    process = subprocess.Popen(
        [command, "serve", directory / "toy", "--port", str(port), "--host", "127.0.0.1", "--device", "cpu"],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait_for(port, process, directory / "log")
        yield Served(f"http://127.0.0.1:{port}/v1", str(directory / "toy"))
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"the server did not open its port: {log.read_text()}")


def _save_checkpoint(directory: Path) -> None:
    """A GPT-2 of random weights that knows forty words and draws."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<end>", *(f"word{number}" for number in range(40))]
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<end>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    model.generation_config = GenerationConfig(do_sample=True, eos_token_id=0, pad_token_id=0)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_transformers_serve_is_an_endpoint(served: Served, api: Api) -> None:
    settings = EndpointSettings(api, retries=0)
    with OpenAiGenerator(served.model, settings, base_url=served.base_url, api_key="local") as generator:
        answers = generator.generate(["word1 word2", "word3"], 3, max_tokens=4)
        assert [len(each) for each in answers] == [3, 3]  # it gives one at a time, so it was asked again
        for text in (one for each in answers for one in each):
            assert all(word.startswith("word") for word in text.text.split())
            assert len(text.text.split()) <= 4
        assert len({one.text for each in answers for one in each}) > 1
        first, second = (generator.generate(["word1"], max_tokens=4, temperature=0) for _ in range(2))
        assert first == second


def test_transformers_serve_explains_another_model(served: Served) -> None:
    with (
        OpenAiGenerator(
            "other", EndpointSettings(retries=0), base_url=served.base_url, api_key="local"
        ) as generator,
        pytest.raises(EndpointError, match="to accept the request, got 400: Server is pinned to"),
    ):
        generator.generate(["word1"])


def test_a_password_in_the_address_stands_in_no_error() -> None:
    address = "http://ada:secret@127.0.0.1:9/v1"
    with (
        OpenAiGenerator("toy", EndpointSettings(retries=0), base_url=address, api_key=KEY) as generator,
        pytest.raises(EndpointError) as refused,
    ):
        generator.generate(["x"])
    assert "127.0.0.1:9/v1" in str(refused.value)
    assert "secret" not in str(refused.value)
