"""Title mode over the toy catalog: a vocabulary of its own words, and a decoder without weights."""

from __future__ import annotations

from genrec.bundle_text import BundleText
from genrec.modes import TrieMode, codes_mode, title_mode
from genrec.recommender import Recommender
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TaskDefaults
from genrec.vocabulary import TextVocabulary
from index.item_index import ItemIndex
from tests.fake_decoder import FakeDecoder

BEAM = 5


def toy_text(index: ItemIndex, size: int = 300) -> BundleText:
    """The text part of a bundle over an index."""
    vocabulary = TextVocabulary.train(index.catalog.titles, size)
    return BundleText.of(index, vocabulary, SpeechForm("compact"))


def toy_title_mode(index: ItemIndex, text: BundleText, seed: int = 0) -> TrieMode:
    """A model that writes titles at random."""
    speech = Speech(index, text.form, text.vocabulary)
    return title_mode(speech, text.titles, FakeDecoder(text.vocabulary.size, seed), TaskDefaults(beam=BEAM))


def toy_recommender(index: ItemIndex, seed: int = 0) -> Recommender:
    """Codes and titles of one catalog."""
    codes = codes_mode(index, FakeDecoder(sum(index.level_sizes), seed), TaskDefaults(beam=BEAM))
    return Recommender(index, modes={"semantic_id": codes, "title": toy_title_mode(index, toy_text(index))})
