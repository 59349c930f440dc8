"""Planted models: what a recipe must find out is put into a model without weights, so that a check needs no training.

A planted model is a function from all the text so far to the weights of what may be said next. It is turned
into a decoder exactly: the probability of a next token is the share of the answers that go on with it.
Preferences, biases and oracles of a check are such functions; the recipe under test sees an ordinary model.
Only checks use this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import polars as pl

from genrec.bundle_text import BundleText
from genrec.decoders.base import PROMPT_SLOT, Items, Prefilled, Prompt, State, Tokens
from genrec.demo import read_works
from genrec.modes import AnyMode, codes_mode, title_mode
from genrec.recommender import Recommender
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TaskDefaults
from genrec.vocabulary import TextVocabulary
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.item_index import ItemIndex
from index.types import Float32Array, IntArray

Says = Callable[[str], Mapping[str, float]]
"""All text up to the last cue, to what may follow it with which weight. Nothing: the model ends its answer."""

_CUE = re.compile(r"\A(?:[^\n]*->|\d+\.|[^:\n]*:)")
"""In the last line: an arrow, else a number with a full stop, else what stands before a colon."""
_NEVER = -30.0  # logit of what the planted model would not say


@dataclass
class PlantedState:
    """The text of a prompt and, per slot, the tokens from there to it."""

    prompt: str
    paths: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """Tokens fed."""
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        """About."""
        return sum(8 * len(path) for path in self.paths)

    def fork(self) -> PlantedState:
        """A copy."""
        return PlantedState(self.prompt, list(self.paths))

    def compact(self, live: IntArray) -> None:
        """Keep some slots."""
        self.paths = [self.paths[slot] for slot in live]


class PlantedDecoder:
    """See the module, and :class:`genrec.decoders.base.Decoder` for the methods.

    Args:
        vocabulary: its tokens; texts of a check are ASCII.
        says: the planted model.
    """

    def __init__(self, vocabulary: TextVocabulary, says: Says) -> None:
        self._vocabulary = vocabulary
        self._says = lru_cache(maxsize=4096)(lambda before: dict(says(before)))
        self._text_of = lru_cache(maxsize=None)(lambda token: vocabulary.decoded([token]))
        self._row_of: dict[str, int] = {}
        self._rows: list[Float32Array] = []
        self.tokens_read = 0
        """Tokens of prompts and of what was fed behind them, since the start."""

    @cached_property
    def _stops(self) -> list[int]:
        return [
            self._vocabulary.end,
            *self._vocabulary.literal("\n")[:1],
            *self._vocabulary.literal(" ->")[:1],
        ]

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """Read prompts."""
        states = [PlantedState("".join(map(self._segment, prompt))) for prompt in prompts]
        hidden = [self._hidden(state.prompt) for state in states]
        return Prefilled(list(states), np.array(hidden, np.float32)[:, None])

    def extend(
        self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray
    ) -> Float32Array:
        """Feed tokens."""
        self.tokens_read += len(token)
        hidden = []
        for place, fed, before in zip(request.tolist(), token.tolist(), parent.tolist(), strict=True):
            state = states[place]
            assert isinstance(state, PlantedState)
            path = (*(state.paths[before] if before != PROMPT_SLOT else ()), fed)
            state.paths.append(path)
            hidden.append(self._hidden(state.prompt + "".join(map(self._text_of, path))))
        return np.array(hidden, np.float32).reshape(-1, 1)

    def edge_logits(self, hidden: Float32Array, row: IntArray, token: IntArray) -> Float32Array:
        """Logits of edges."""
        rows = hidden[:, 0].astype(int)
        return np.array(
            [self._rows[rows[r]][t] for r, t in zip(row.tolist(), token.tolist(), strict=True)], np.float32
        )

    def log_normalizer(self, hidden: Float32Array, depth: IntArray) -> Float32Array:
        """Log of the sum over all tokens."""
        logits = self.logits(hidden).astype(np.float64)
        normalizer: Float32Array = np.log(np.exp(logits).sum(1)).astype(np.float32)
        return normalizer

    def logits(self, hidden: Float32Array) -> Float32Array:
        """All logits."""
        return np.stack([self._rows[int(row)] for row in hidden[:, 0]])

    def _segment(self, part: Items | Tokens) -> str:
        if isinstance(part, Items):
            return f"[{','.join(map(str, part.rows.tolist()))}]"
        self.tokens_read += len(part.ids)
        return self._vocabulary.decoded(part.ids.tolist())

    def _hidden(self, text: str) -> int:
        if text not in self._row_of:
            self._row_of[text] = len(self._rows)
            self._rows.append(self._logits_after(text))
        return self._row_of[text]

    def _logits_after(self, text: str) -> Float32Array:
        line = text[text.rfind("\n") + 1 :]
        cue = _CUE.match(line)
        cut = len(text) - len(line) + (cue.end() if cue else 0)
        partial = text[cut:]
        logits = np.full(self._vocabulary.size, _NEVER, np.float32)
        options = self._says(text[:cut])
        total = sum(options.values())
        weight: dict[int, float] = {}
        for option, own in options.items():
            steps = self._steps(option)
            if partial == steps.whole:
                weight.update(dict.fromkeys(self._stops, own / len(self._stops)))
            elif partial in steps.next:
                after = steps.next[partial]
                weight[after] = weight.get(after, 0.0) + own
        if not weight:
            weight[self._vocabulary.end] = total or 1.0
        logits[list(weight)] = np.log(np.array(list(weight.values()))) - np.log(sum(weight.values()))
        return logits

    def _steps(self, option: str) -> _Steps:
        return _steps(self._vocabulary, option)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The token behind every beginning of an answer."""

    next: Mapping[str, int]
    whole: str


@lru_cache(maxsize=65536)
def _steps(vocabulary: TextVocabulary, option: str) -> _Steps:
    path = vocabulary.answers([option])[0][:-1]
    text, following = "", {}
    for token in path:
        following[text] = token
        text += vocabulary.decoded([token])
    return _Steps(following, text)


def planted_recommender(
    index: ItemIndex, says: Says, *, text: BundleText | None = None
) -> tuple[Recommender, PlantedDecoder]:
    """A recommender whose model reads prose and answers as planted, and that model.

    Codes, where a recipe asks the recommender for candidates, are the planted model's too: it knows none, so that
    they come in the trie's order.
    """
    spoken = text or prose_text(index)
    speech = Speech(index, spoken.form, spoken.vocabulary)
    decoder = PlantedDecoder(spoken.vocabulary, says)
    modes: dict[str, AnyMode] = {
        "semantic_id": codes_mode(index, _flat(index), TaskDefaults(beam=20)),
        "title": title_mode(speech, spoken.titles, decoder, TaskDefaults(beam=20)),
    }
    return Recommender(index, modes=modes), decoder


@lru_cache(maxsize=4)
def prose_text(index: ItemIndex, size: int = 700) -> BundleText:
    """The text part of a model that reads prose, in the catalog's own words."""
    vocabulary = TextVocabulary.train(index.catalog.titles, size)
    return BundleText.of(index, vocabulary, SpeechForm("prose"))


@lru_cache(maxsize=1)
def films() -> ItemIndex:
    """Films of the demo catalog as an index: titles of plain words, none twice."""
    works = (
        read_works()
        .filter((pl.col("kind") == "film") & pl.col("title").str.contains(r"^[A-Za-z ]+$"))
        .unique("title", keep="first", maintain_order=True)
        .head(120)
    )
    catalog = Catalog(works.with_columns(pl.col("year").cast(pl.Int64)))
    return build_index(catalog, None, IndexSettings(text_encoder="tfidf", codebook_size=16, levels=2))


class _Flat:
    """A decoder to which every token is as probable as any other."""

    def __init__(self, size: int) -> None:
        self._size = size

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        return Prefilled([PlantedState("") for _ in prompts], np.zeros((len(prompts), 1), np.float32))

    def extend(
        self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray
    ) -> Float32Array:
        for place in request.tolist():
            state = states[place]
            assert isinstance(state, PlantedState)
            state.paths.append(())
        return np.zeros((len(token), 1), np.float32)

    def edge_logits(self, hidden: Float32Array, row: IntArray, token: IntArray) -> Float32Array:
        return np.zeros(len(token), np.float32)

    def log_normalizer(self, hidden: Float32Array, depth: IntArray) -> Float32Array:
        return np.full(len(hidden), np.log(self._size), np.float32)


def _flat(index: ItemIndex) -> _Flat:
    return _Flat(sum(index.level_sizes))
