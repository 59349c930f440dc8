"""Texts to ids and back. Pretrained families are toys of a few tokens, made as their tokenizers are made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from genrec.grammars.words import forbidden_tokens
from genrec.vocabulary import FACTS_FILE, TOKENIZER_FILE, TextVocabulary, one_line
from index.errors import IdentifierError, IndexFormatError, RequestError

TITLES = ["Dune", "Dune: Part Two", "Alien", "Aliens", "Amélie", "The River Comedy"]


LONG = TextVocabulary.train(TITLES, 300, longest=200)


@pytest.fixture(scope="module")
def vocabulary() -> TextVocabulary:
    return TextVocabulary.train(TITLES, 300)


def test_answers_end_in_the_terminator_and_nowhere_else(vocabulary: TextVocabulary):
    for ids in vocabulary.answers([*TITLES, "said <end> twice", "<title>"]):
        assert ids[-1] == vocabulary.end
        assert vocabulary.end not in ids[:-1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=4))
def test_text_is_the_inverse_of_answers(texts: list[str]):
    vocabulary = LONG
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert [vocabulary.text(ids) for ids in vocabulary.answers(texts)] == [one_line(text) for text in texts]


def test_what_looks_like_a_special_token_is_text(vocabulary: TextVocabulary, tmp_path: Path):
    vocabulary.save(tmp_path)
    for one in (vocabulary, TextVocabulary.load(tmp_path)):  # the setting is not in the tokenizer's own file
        (ids,) = one.answers(["<end> of <title>"])
        assert one.mark("title") not in ids
        assert ids.index(one.end) == len(ids) - 1
        assert one.text(ids) == "<end> of <title>"


def test_an_empty_text_is_the_terminator_alone(vocabulary: TextVocabulary):
    assert vocabulary.answers(["", "  \n "]) == [[vocabulary.end]] * 2


def test_long_answers_are_cut(vocabulary: TextVocabulary):
    short = TextVocabulary(vocabulary.tokenizer, type(vocabulary.facts)(vocabulary.end, longest=4))
    (ids,), (whole,) = short.answers(["The River Comedy"]), vocabulary.answers(["The River Comedy"])
    assert ids == [*whole[:3], short.end]


def test_training_gives_the_same_vocabulary_again(vocabulary: TextVocabulary):
    again = TextVocabulary.train(iter(TITLES), 300)
    assert again.content_hash == vocabulary.content_hash
    assert TextVocabulary.train(TITLES[:-1], 300).content_hash != vocabulary.content_hash
    assert TextVocabulary.train(TITLES, 300, longest=9).content_hash != vocabulary.content_hash


def test_a_vocabulary_comes_back_from_disk(vocabulary: TextVocabulary, tmp_path: Path):
    vocabulary.save(tmp_path)
    loaded = TextVocabulary.load(tmp_path)
    assert loaded.content_hash == vocabulary.content_hash
    assert loaded.size == vocabulary.size
    assert loaded.answers(TITLES) == vocabulary.answers(TITLES)


def test_the_codes_of_a_plan_stand_behind_the_words_and_say_nothing(tmp_path: Path):
    plain, planned = TextVocabulary.train(TITLES, 300), TextVocabulary.train(TITLES, 300, plan=(3, 4))
    assert (planned.words, planned.size) == (plain.size, plain.size + 7)
    assert "plan" not in plain.facts.to_dict()  # the hash of a vocabulary without one is what it was
    assert planned.content_hash != plain.content_hash
    (dune,) = planned.answers(["Dune"])
    assert [dune] == plain.answers(["Dune"])
    answer = [*planned.planned(np.array([2, 3 + 1])).tolist(), *dune]
    assert answer[:2] == [plain.size + 2, plain.size + 4]
    assert planned.text(answer) == "Dune"
    assert planned.decoded(answer) == " Dune"
    assert forbidden_tokens(planned, "")[planned.words :].all()  # free text cannot go on with them
    planned.save(tmp_path)
    loaded = TextVocabulary.load(tmp_path)
    assert (loaded.facts, loaded.content_hash) == (planned.facts, planned.content_hash)
    (tmp_path / FACTS_FILE).write_text('{"end": 0, "before": [], "behind": [], "plan": [0]}')
    with pytest.raises(IndexFormatError, match="facts of a vocabulary"):
        TextVocabulary.load(tmp_path)


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(RequestError, match=r"at least 261 tokens, got 100"):
        TextVocabulary.train(TITLES, 100)


def test_an_unknown_mark_is_refused(vocabulary: TextVocabulary):
    with pytest.raises(IdentifierError, match="'<song>'"):
        vocabulary.mark("song")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (TOKENIZER_FILE, None, "got none; save the model's tokenizer"),
        (TOKENIZER_FILE, "{", "expected a tokenizer in"),
        (FACTS_FILE, "[]", "expected a JSON object"),
        (FACTS_FILE, "{", "expected a JSON file"),
        (FACTS_FILE, '{"end": 0}', "expected the facts of a vocabulary"),
        (FACTS_FILE, '{"end": 0, "before": [], "behind": [], "lead": "", "longest": 1}', "facts of a"),
        (FACTS_FILE, '{"end": 9999, "before": [], "behind": []}', "got id 9999"),
    ],
)
def test_damaged_files_are_refused(
    vocabulary: TextVocabulary, tmp_path: Path, file: str, content: str | None, message: str
):
    vocabulary.save(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(IndexFormatError, match=message):
        TextVocabulary.load(tmp_path)


def byte_level(directory: Path, template: str | None = None, **config: object) -> Path:
    """A directory as GPT-2's or Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    return _written(directory, tokenizer, trainer, template, config)


def sentencepiece(directory: Path, template: str | None = None, **config: object) -> Path:
    """A directory as T5's or Llama 2's, whose tokenizer puts the leading space itself."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    return _written(directory, tokenizer, trainer, template, config)


def _written(directory: Path, tokenizer: Tokenizer, trainer, template: str | None, config: dict) -> Path:
    tokenizer.train_from_iterator([f"{title}\n{title}: the film" for title in TITLES], trainer)
    if template is not None:
        ids = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>") if name in template]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    tokenizer.save(str(directory / TOKENIZER_FILE))
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


class TestPretrained:
    def test_answers_of_a_byte_level_tokenizer_begin_with_the_space(self, tmp_path: Path):
        vocabulary = TextVocabulary.of_pretrained(byte_level(tmp_path))
        assert vocabulary.facts.lead == " "
        whole = vocabulary.tokenizer.encode("film: Alien").ids
        assert [*whole[-len(vocabulary.answers(["Alien"])[0]) + 1 :], vocabulary.end] == (
            vocabulary.answers(["Alien"])[0]
        )
        assert vocabulary.text(vocabulary.answers(["Alien"])[0]) == "Alien"

    def test_answers_of_sentencepiece_are_not_given_a_second_space(self, tmp_path: Path):
        vocabulary = TextVocabulary.of_pretrained(sentencepiece(tmp_path))
        assert vocabulary.facts.lead == ""
        tokens = [vocabulary.tokenizer.id_to_token(token) for token in vocabulary.answers(["Dune"])[0]]
        assert "".join(tokens) == "▁Dune</s>"
        assert vocabulary.text(vocabulary.answers(["Dune"])[0]) == "Dune"

    @pytest.mark.parametrize("make", [byte_level, sentencepiece])
    def test_prompt_and_answer_laid_end_to_end_read_as_one_text(self, tmp_path: Path, make):
        vocabulary = TextVocabulary.of_pretrained(make(tmp_path))
        ids = [*vocabulary.prompt("The film: "), *vocabulary.answers(["Alien"])[0][:-1]]
        assert vocabulary.tokenizer.decode(ids) == "The film: Alien"

    @pytest.mark.parametrize("make", [byte_level, sentencepiece])
    @pytest.mark.parametrize("text", [": ", "the film", ": Alien", "film: Dune"])
    def test_a_literal_behind_other_tokens_reads_as_it_stands(self, tmp_path: Path, make, text: str):
        """A tokenizer that puts a space in front of every first word must not put one in front of a literal."""
        vocabulary = TextVocabulary.of_pretrained(make(tmp_path))
        before = [*vocabulary.prompt("The film"), *vocabulary.literal(text)]
        assert vocabulary.decoded([*before, vocabulary.end]) == "The film" + text

    def test_the_bos_of_a_template_stands_in_front_and_its_eos_only_in_an_encoder(self, tmp_path: Path):
        directory = byte_level(tmp_path, "<s> $A </s>")
        causal = TextVocabulary.of_pretrained(directory)
        encoder = TextVocabulary.of_pretrained(directory, is_encoder=True)
        bos, eos = (causal.tokenizer.token_to_id(name) for name in ("<s>", "</s>"))
        assert [causal.prompt("a")[0], causal.prompt("a")[-1] == eos] == [bos, False]
        assert [encoder.prompt("a")[0], encoder.prompt("a")[-1]] == [bos, eos]
        (directory / "config.json").write_text('{"is_encoder_decoder": true}')
        assert TextVocabulary.of_pretrained(directory).content_hash == encoder.content_hash

    def test_add_bos_token_outranks_the_template(self, tmp_path: Path):
        with_bos = TextVocabulary.of_pretrained(byte_level(tmp_path, add_bos_token=True))
        assert with_bos.facts.before == (with_bos.tokenizer.token_to_id("<s>"),)
        without = TextVocabulary.of_pretrained(byte_level(tmp_path, "<s> $A", add_bos_token=False))
        assert without.facts.before == ()
        once = TextVocabulary.of_pretrained(byte_level(tmp_path, "<s> $A", add_bos_token=True))
        assert once.facts.before == with_bos.facts.before

    @pytest.mark.parametrize("token", [None, "<nothing>"])
    def test_a_model_without_an_end_is_refused(self, tmp_path: Path, token: str | None):
        with pytest.raises(IndexFormatError, match="expected an eos_token of the vocabulary"):
            TextVocabulary.of_pretrained(byte_level(tmp_path, eos_token=token))


def test_forbidden_characters_cannot_be_put_together_from_pieces():
    """Without é among its titles a vocabulary writes it as two bytes, neither of which is an é."""
    vocabulary = TextVocabulary.train(["Dune", "The River Comedy"], 300)
    text = vocabulary.literal("café")
    assert len(text) > len(vocabulary.literal("caf")) + 1
    assert forbidden_tokens(vocabulary, "é")[text].any()
    assert not forbidden_tokens(vocabulary, "\n")[text].any()
