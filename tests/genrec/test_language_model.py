"""A language model of a directory, talking about a catalog."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genrec.language_model import language_model_titles
from genrec.recipes import llm_rank
from genrec.recommender import Recommender
from genrec.vocabulary import TextVocabulary
from index.errors import IndexFormatError
from tests.genrec import tiny_models
from tests.toy import toy_index


def test_a_saved_model_ranks_and_its_titles_are_items(tmp_path: Path) -> None:
    index = toy_index()
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    tiny_models.gpt2(vocab_size=vocabulary.size, n_positions=512).save_pretrained(tmp_path)
    vocabulary.tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    recommender = Recommender(index, modes={"title": language_model_titles(index, tmp_path)})
    candidates = ["i3", "i8", "i13"]
    for by in ("list", "score"):
        answer = llm_rank(recommender, ["i1", "i2"], candidates, by=by)  # type: ignore[arg-type]
        assert sorted(answer.ids) == sorted(candidates)
    assert len(recommender.recommend(["i1"], k=4).items) == 4


def test_a_directory_without_a_model_says_so(tmp_path: Path) -> None:
    vocabulary = TextVocabulary.train(["one title"], 300)
    vocabulary.tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    with pytest.raises(IndexFormatError, match="expected a causal language model"):
        language_model_titles(toy_index(), tmp_path)
