"""The text of a native bundle while it is trained: its vocabulary, what is to be written, and how well it is.

It knows no codes, no optimisation and no test events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from genrec.bundle_text import BundleText
from genrec.decoders.native_text import native_text_decoder
from genrec.evaluation.protocol import figures, rank_cases
from genrec.evaluation.query_tuning import tune_bm25
from genrec.modes import query_mode, title_mode
from genrec.native_config import NativeConfig
from genrec.native_model import NativeModel
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.recommender import Recommender
from genrec.search import Normalize
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TASKS, QueryDefaults, TaskDefaults
from genrec.text_branch import Branches, Trunk, branch_loss
from genrec.training.examples import pad
from genrec.training.pretrain import TEXT_METRIC
from genrec.training.text_answers import Answers, TextCorpus, TextTask
from genrec.vocabulary import TextVocabulary
from index.errors import TrainingError
from index.histories import Cases
from index.item_index import ItemIndex
from index.types import Int64Array

# Tokens learned from titles: about one for three items, within these. Amazon Beauty gets 4,033, with which a title
# has 16 tokens (median).
SMALLEST_VOCABULARY, LARGEST_VOCABULARY, ITEMS_PER_TOKEN = 1_024, 8_192, 3

# How often what is asked for. Not tuned.
WEIGHTS = {"title": 1.0, "query": 1.0}

TEXT_USERS = 500
"""Validation users whose titles choose the normalisation, and whose queries how they are searched with: text runs the
model's body at a hundred places, where codes run a small head at four."""
TEXT_BEAM = 20
"""Prefixes kept per step of a title or a query: a step costs as many rows of the body."""
_VALIDATION_BATCH = 256


@dataclass(frozen=True, eq=False)
class TextPart:
    """All that writing adds to the training of a native model."""

    config: NativeConfig  # the model's shape, text included
    bundled: BundleText
    speech: Speech
    corpus: TextCorpus

    @torch.no_grad()
    def figures(self, model: NativeModel, cases: Cases) -> dict[str, float]:
        """The geometric mean probability of a word of what should be written of the item that comes."""
        total, count = 0.0, 0
        for task in self.corpus.tasks:
            for begin in range(0, len(cases), _VALIDATION_BATCH):
                branches, rows = self._asked(task, cases, begin)
                tokens = int((branches.answer >= 0).sum())
                if not tokens:
                    continue
                trunk = Trunk()
                model.encode(torch.from_numpy(rows), trunk)
                loss = branch_loss(model, trunk, branches)
                total, count = total + float(loss) * tokens, count + tokens
        return {TEXT_METRIC: float(np.exp(-total / max(count, 1)))}

    def title_figures(self, model: NativeModel, cases: Cases, normalize: Normalize) -> dict[str, float]:
        """The metrics of constrained titles on some cases."""
        some = _some_of(cases)
        mode = title_mode(
            self.speech,
            self.bundled.titles,
            native_text_decoder(model, self.speech.index.trie),
            TaskDefaults(normalize, TEXT_BEAM),
        )
        ranked = rank_cases(Recommender(self.speech.index, modes={"title": mode}), some, k=10)
        return figures(ranked, some.target, len(self.speech.index.catalog))

    def tuned_queries(self, model: NativeModel, cases: Cases, defaults: QueryDefaults) -> QueryDefaults:
        """The defaults of query mode with how they are searched with chosen on some cases."""
        index = self.speech.index
        some = _some_of(cases)
        search = CatalogQuerySearch(
            ModelQueries(native_text_decoder(model, index.trie), self.speech), index.bm25
        )
        return tune_bm25(query_mode(self.speech, search, defaults), index, some).defaults(defaults)

    def _asked(self, task: TextTask, cases: Cases, begin: int) -> tuple[Branches, Int64Array]:
        """The branches of a batch of cases behind their histories int64[B, P]."""
        batch = range(begin, min(begin + _VALIDATION_BATCH, len(cases)))
        histories = [cases.history_of(case)[-self.config.max_items :] for case in batch]
        length = np.array([len(one) for one in histories], np.int64)
        flat = np.concatenate([np.zeros(0, np.int64), *histories]).astype(np.int64)
        rows = pad(flat, np.cumsum(length) - length, length)
        target = cases.target[batch.start : batch.stop]
        written = np.flatnonzero(task.answers.length[target])
        answer = task.answers.padded(target[written], int(task.answers.length[target].max(initial=1)))
        branches = Branches(
            torch.from_numpy(written),
            torch.from_numpy(1 + length[written]),
            torch.full((len(written),), task.mark),
            torch.from_numpy(target[written]),
            torch.from_numpy(answer),
        )
        return branches, rows


def text_part(index: ItemIndex, tasks: Sequence[str], config: NativeConfig) -> TextPart:
    """Learn a vocabulary from a catalog's titles and make the answers of text tasks.

    Args:
        index: the catalog.
        tasks: names, without those that only teach.
        config: the shape of the model; text is added to it.

    Raises:
        TrainingError: no item has a title.
    """
    titles = index.catalog.titles
    size = int(np.clip(len(titles) // ITEMS_PER_TOKEN, SMALLEST_VOCABULARY, LARGEST_VOCABULARY))
    vocabulary = TextVocabulary.train(titles, size, plan=index.level_sizes)
    bundled = BundleText.of(index, vocabulary, SpeechForm("compact", max_items=config.max_items))
    speech = Speech(index, bundled.form, vocabulary)
    if not speech.is_titled.any():
        raise TrainingError("expected items with titles to write, got none; train on semantic_id alone")
    corpus = TextCorpus([_text_task(name, speech) for name in tasks])
    config = replace(config, text_size=vocabulary.words, max_text=vocabulary.facts.longest)
    return TextPart(config, bundled, speech, corpus)


def _text_task(name: str, speech: Speech) -> TextTask:
    spec = TASKS[name]
    assert spec.mark is not None
    ids = spec.answers(speech, np.arange(len(speech.titles)))
    answers = Answers([one if titled else [] for one, titled in zip(ids, speech.is_titled, strict=True)])
    return TextTask(speech.vocabulary.mark(spec.mark), answers, WEIGHTS[name])


def _some_of(cases: Cases) -> Cases:
    """At most :data:`TEXT_USERS` cases, spread over all: users may stand in the order in which they came."""
    return cases.take(np.linspace(0, len(cases) - 1, min(TEXT_USERS, len(cases))).astype(np.int64))
