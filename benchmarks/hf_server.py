"""The peer of ``benchmarks/serve.py``: Hugging Face ``generate`` behind a FastAPI app as lean as it can be.

It gets what is usually recommended: constrained beam search by ``prefix_allowed_tokens_fn`` over a trie of
dicts, requests that wait are generated together (left-padded), the queue is bounded, one torch thread, weights
in float32, inference mode. No validation, no logging, no metrics.

On one CPU thread a batch of 4 costs more than 4 batches of one (every beam has its own copy of the prompt's keys
and values, so the work grows with the batch and falls out of the caches). Without ``--max-batch`` it tries a few
sizes before it begins and takes the one with which it answers most.

Run: ``python -m benchmarks.hf_server BUNDLE [--max-batch 4] --port 0``; prints a line of JSON when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from transformers import AutoModelForCausalLM

from benchmarks.serve_bundle import BEAMS, HISTORY, START
from genrec.bundle import load_bundle
from index.types import Int64Array

BATCHES = (1, 2, 4)


@dataclass(frozen=True)
class Answer:
    """One user's items, best first."""

    items: list[str]
    scores: list[float]


class Generator:
    """Batches of histories to items, by beam search of the transformers library."""

    def __init__(self, bundle: Path) -> None:
        opened = load_bundle(bundle)
        self._model: Any = AutoModelForCausalLM.from_pretrained(opened.artifact.files / "model")
        self._model.train(False)
        self.item_ids = opened.index.catalog.item_ids
        self._row = {item_id: row for row, item_id in enumerate(self.item_ids)}
        self._codes = opened.index.level_tokens.astype(np.int64) + int(
            opened.artifact.manifest["model"]["token_offset"]
        )  # [N, L]
        self._levels = self._codes.shape[1]
        self._item_of = {tuple(path): row for row, path in enumerate(self._codes.tolist())}
        following: dict[tuple[int, ...], dict[int, None]] = {}
        for path in self._item_of:
            for depth, token in enumerate(path):
                following.setdefault(path[:depth], {})[token] = None
        self._following = {prefix: list(tokens) for prefix, tokens in following.items()}

    def prompt(self, history: Sequence[str]) -> Int64Array:
        """int64[P]: what the model reads of a history."""
        rows = [self._row[one] for one in history]
        return np.concatenate([np.array(START), self._codes[rows].ravel()])

    def generate(self, prompts: Sequence[Int64Array]) -> list[Answer]:
        """The beams of every prompt as items."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, width - len(prompt) :] = 1
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                num_beams=BEAMS,
                num_return_sequences=BEAMS,
                prefix_allowed_tokens_fn=lambda _, sequence: self._following[
                    tuple(sequence[width:].tolist())
                ],
                length_penalty=0.0,
                early_stopping=False,
                do_sample=False,
                max_new_tokens=self._levels,
                eos_token_id=None,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_scores=True,
            )
        paths = output.sequences[:, width:].tolist()
        found = [self.item_ids[self._item_of[tuple(path)]] for path in paths]
        scores = output.sequences_scores.tolist()
        return [
            Answer(found[start : start + BEAMS], scores[start : start + BEAMS])
            for start in range(0, len(found), BEAMS)
        ]


def create_app(generator: Generator, max_batch: int, queue_size: int) -> FastAPI:
    """One route; requests that wait are generated together."""
    waiting: asyncio.Queue[tuple[Int64Array, asyncio.Future[Answer]]] = asyncio.Queue(queue_size)

    async def work() -> None:
        while True:
            batch = [await waiting.get()]
            while len(batch) < max_batch and not waiting.empty():
                batch.append(waiting.get_nowait())
            answers = await asyncio.to_thread(generator.generate, [prompt for prompt, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(work())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/recommendations")
    async def recommend(request: Request) -> Response:
        history = (await request.json())["history"]
        if waiting.full():
            return JSONResponse({"error": "queue full"}, 429)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting.put_nowait((generator.prompt(history), future))
        answer = await future
        return JSONResponse({"items": answer.items, "scores": answer.scores})

    return app


def batch_costs(generator: Generator, sizes: Sequence[int]) -> dict[int, float]:
    """CPU seconds a request takes in batches of each size, the better of two; the first call is not counted."""
    rng = np.random.default_rng(0)
    ids = generator.item_ids
    prompts = [generator.prompt([ids[row] for row in rng.integers(0, len(ids), HISTORY)]) for _ in range(8)]
    generator.generate(prompts[:1])
    costs = {}
    for size in sizes:
        tries = []
        for _ in range(2):
            start = time.process_time()
            generator.generate(prompts[:size])
            tries.append((time.process_time() - start) / size)
        costs[size] = round(min(tries), 4)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--max-batch", type=int)
    parser.add_argument("--queue-size", type=int, default=256)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = Generator(options.bundle)
    costs = batch_costs(generator, [options.max_batch] if options.max_batch else BATCHES)
    max_batch = min(costs, key=lambda size: costs[size])
    listener = socket.socket()
    listener.bind(("127.0.0.1", options.port))
    listener.listen(2048)
    ready = {
        "port": listener.getsockname()[1],
        "max_batch": max_batch,
        "cpu_seconds_a_request_by_batch": costs,
    }
    print(json.dumps(ready), flush=True)
    app = create_app(generator, max_batch, options.queue_size)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
