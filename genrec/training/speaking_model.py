"""The model that is fine-tuned, with its way of reading and writing one catalog: vocabulary, forms, modes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.bundle_text import BundleText
from genrec.decoders.encoder_decoder import EncoderDecoder
from genrec.decoders.prompt_reader import HistoryForm, PromptReader
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.modes import AnyMode, codes_mode, query_mode, title_mode
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.recipes.instructions import INSTRUCTIONS, wordings
from genrec.recommender import Recommender
from genrec.speech import FormKind, Speech, SpeechForm
from genrec.tasks import TASKS, QueryDefaults, TaskDefaults, tasks_in_order
from genrec.training.adapters import decodable
from genrec.training.base_model import BaseModel, has_weights, load_base
from genrec.training.finetune_settings import FinetuneSettings
from genrec.vocabulary import TextVocabulary
from index.errors import TrainingError
from index.item_index import ItemIndex

CODES_OPENING = "Items a user chose, oldest first, by their codes:"
"""What stands in front of a history of codes in prose."""
_WEIGHT = 50
"""Times that the words of prompts count among the titles, when a vocabulary is made of both."""


@dataclass(frozen=True, eq=False)
class SpeakingModel:
    """A model with its way of reading and writing one catalog."""

    base: BaseModel
    index: ItemIndex
    form: SpeechForm
    history: HistoryForm | None  # None: it reads titles alone
    text: BundleText | None
    modes: tuple[str, ...]

    @property
    def measured(self) -> list[str]:
        """The modes that validation asks. Writing queries costs several times what walking a trie does, and nothing
        is to be chosen for them, so they are asked only where they are all there is."""
        return [name for name in self.modes if name != "query"] or list(self.modes)

    @property
    def speech(self) -> Speech:
        """How it reads and writes."""
        return Speech(self.index, self.form, self.base.vocabulary)

    @property
    def token_offset(self) -> int:
        """Vocabulary id of the trie's token 0; 0 where it has no codes."""
        return self.base.token_offset if self.history is not None else 0

    def reader(self) -> PromptReader:
        """How its decoder turns prompts into ids."""
        if self.history is None:
            return PromptReader()
        return PromptReader(self.history, self.index.level_tokens + self.token_offset)

    def recommender(self, model: Any, defaults: Mapping[str, TaskDefaults]) -> Recommender:
        """A recommender over the weights as they are now."""
        kind = EncoderDecoder if self.base.is_encoder_decoder else TorchDecoder
        codes = kind(decodable(model), self.token_offset, reader=self.reader())
        modes: dict[str, AnyMode] = {}
        for name in self.modes:
            if TASKS[name].held_by == "codes":
                modes[name] = codes_mode(self.index, codes, defaults[name])
            elif TASKS[name].held_by == "titles":
                assert self.text is not None
                modes[name] = title_mode(self.speech, self.text.titles, codes.with_offset(0), defaults[name])
            else:
                asked = defaults[name]
                assert isinstance(asked, QueryDefaults)
                writer = ModelQueries(codes.with_offset(0), self.speech)
                modes[name] = query_mode(self.speech, CatalogQuerySearch(writer, self.index.bm25), asked)
        return Recommender(self.index, modes=modes)


def speaking_model(
    index: ItemIndex, settings: FinetuneSettings, mixture: Mapping[str, float]
) -> SpeakingModel:
    """The base model, and how it will read and write.

    Raises:
        TrainingError: there is no such base, or its positions have no room for a history.
    """
    is_pretrained = has_weights(settings.base)
    instructed = any(name in INSTRUCTIONS for name in mixture)
    kind: FormKind = settings.form or ("prose" if is_pretrained or instructed else "compact")
    specs = [TASKS[name] for name in mixture if name in TASKS]
    writes = instructed or any(spec.is_text or spec.shown == "title" for spec in specs)
    # In prose a history that text follows is titles; everything else stands as codes.
    has_codes = kind == "compact" or any(spec.written == "code" or spec.shown == "code" for spec in specs)
    codes = sum(index.level_sizes) if has_codes else 0
    own = None
    if not is_pretrained and (writes or kind == "prose"):
        texts = [title for title in index.catalog.titles if title]
        if kind == "prose":
            texts += _WEIGHT * wordings(index)
        own = TextVocabulary.train(texts, settings.text_size)
    base = load_base(settings.base, codes, settings.seed, texts=own, needs_text=writes or kind == "prose")
    if writes and kind == "compact" and base.vocabulary is not None:
        for spec in specs:
            if spec.mark is not None:
                base.vocabulary.mark(spec.mark)  # says now what would fail in the first batch
    text = None
    form = SpeechForm(kind, settings.max_items, settings.max_tokens)
    if writes:
        assert base.vocabulary is not None
        text = BundleText.of(index, base.vocabulary, form)
    form, history = _forms(index, base, text, settings, kind, has_codes)
    if text is not None:
        text = BundleText(text.vocabulary, form, text.titles)
    modes = tuple(name for name in tasks_in_order(list(mixture)) if TASKS[name].is_mode)
    if not modes:  # recipes talk to a model by its titles, whether it has learned them or not
        modes = ("title",)
    return SpeakingModel(base, index, form, history, text, modes)


def _forms(
    index: ItemIndex,
    base: BaseModel,
    text: BundleText | None,
    settings: FinetuneSettings,
    kind: FormKind,
    has_codes: bool,
) -> tuple[SpeechForm, HistoryForm | None]:
    """Prompts that the model's positions have room for, an answer behind them where there is no encoder.

    Raises:
        TrainingError: not even one item fits.
    """
    levels = len(index.level_sizes)
    start: tuple[int, ...] = (base.start,)
    end: tuple[int, ...] = ()
    if kind == "prose" and base.vocabulary is not None:
        facts = base.vocabulary.facts
        ids = base.vocabulary.prompt(CODES_OPENING).tolist()
        start, end = tuple(ids[: len(ids) - len(facts.behind)]), facts.behind
    room = settings.max_tokens + levels * settings.max_items + len(start) + 1  # all that is asked for
    if base.max_positions is not None:
        answers = 0 if base.is_encoder_decoder else levels
        if text is not None and not base.is_encoder_decoder:
            answers = max(answers, int(text.titles.path_length(np.arange(len(text.titles))).max()))
        room = base.max_positions - answers
    items = min(settings.max_items, (room - len(start) - len(end) - 1) // levels)
    if items < 1:
        raise TrainingError(
            f"expected room for a history in the {base.max_positions} positions of {settings.base}, got "
            f"{room} beside the longest answer; use a model with more positions"
        )
    form = SpeechForm(kind, settings.max_items, min(settings.max_tokens, room))
    return form, HistoryForm(start, items, end=end) if has_codes else None
