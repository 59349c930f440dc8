"""The part of a bundle that lets its model write text: its vocabulary, its prompts' form, the trie of titles.

::

    files-…/vocabulary/…     the tokenizer and what it does not say itself
    files-…/titles/…         the trie of the titles in those tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genrec.speech import SpeechForm
from genrec.vocabulary import TextVocabulary
from index.artifact import Artifact, load_array, save_array
from index.errors import IndexFormatError
from index.item_index import ItemIndex
from index.title_paths import build_title_trie
from index.trie import ARRAY_NAMES, TokenTrie

TEXT = "text"
"""Key of a bundle's manifest."""
VOCABULARY, TITLES = "vocabulary", "titles"
"""Directories of a bundle's files; the first is also the key under which a model names its vocabulary."""


@dataclass(frozen=True, eq=False)
class BundleText:
    """What a model needs to read and write text about one catalog."""

    vocabulary: TextVocabulary
    form: SpeechForm
    titles: TokenTrie  # over the vocabulary's tokens, one path per catalog row

    @classmethod
    def of(cls, index: ItemIndex, vocabulary: TextVocabulary, form: SpeechForm) -> BundleText:
        """Tokenise the titles of an index and build their trie."""
        return cls(vocabulary, form, _title_trie(index, vocabulary))

    def over(self, index: ItemIndex) -> BundleText:
        """The same for a changed catalog."""
        return replace(self, titles=_title_trie(index, self.vocabulary))

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of it beside its files."""
        return {
            "form": self.form.to_dict(),
            VOCABULARY: self.vocabulary.content_hash,
            "vocabulary_size": self.vocabulary.size,
            "title_nodes": self.titles.nodes,
        }

    def save_files(self, files: Path) -> None:
        """Write both directories into a bundle's files."""
        (files / VOCABULARY).mkdir()
        self.vocabulary.save(files / VOCABULARY)
        (files / TITLES).mkdir()
        for name, array in self.titles.arrays().items():
            save_array(files / TITLES, name, array)


def _title_trie(index: ItemIndex, vocabulary: TextVocabulary) -> TokenTrie:
    """The titles of an index as answers: behind the codes of the item where answers have a plan."""
    answers = vocabulary.answers
    if vocabulary.facts.plan:
        plans = vocabulary.planned(index.level_tokens).tolist()

        def answers(texts: Sequence[str]) -> list[list[int]]:
            return [plan + words for plan, words in zip(plans, vocabulary.answers(texts), strict=True)]

    return build_title_trie(index.catalog.titles, answers)


def load_text(artifact: Artifact, items: int) -> BundleText | None:
    """The text part of an opened bundle; None where its model speaks codes alone.

    Raises:
        IndexFormatError: model, vocabulary and titles do not belong together, or a file is damaged.
        MissingDependencyError: the ``tokenizers`` package is not installed.
    """
    facts = artifact.manifest.get(TEXT)
    if facts is None:
        return None
    vocabulary = TextVocabulary.load(artifact.files / VOCABULARY)
    named = {vocabulary.content_hash, facts[VOCABULARY], artifact.manifest["model"].get(VOCABULARY)}
    if len(named) != 1:
        raise IndexFormatError(
            f"expected the vocabulary that the model in {artifact.path} was trained with, got another one: its "
            f"tokens would mean other words; restore {artifact.files / VOCABULARY}, or train the bundle again"
        )
    directory = artifact.files / TITLES
    titles = TokenTrie(**{name: load_array(directory, name) for name in ARRAY_NAMES})
    if len(titles) != items or int(titles.path_tokens.max(initial=0)) >= vocabulary.size:
        raise IndexFormatError(
            f"expected the titles of {items} items in tokens below {vocabulary.size}, got {len(titles)} in tokens "
            f"up to {int(titles.path_tokens.max(initial=0))} in {directory}; train the bundle again"
        )
    return BundleText(vocabulary, SpeechForm.from_dict(facts["form"]), titles)
