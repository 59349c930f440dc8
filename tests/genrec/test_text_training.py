"""Training of text beside codes: what is drawn, that it is learned, resumed to the bit, bundled and exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.bundle import load_bundle
from genrec.decoders.onnx_export import export_bundle
from genrec.native_model import NativeConfig, NativeModel
from genrec.recommender import Recommender
from genrec.text_branch import Trunk, branch_loss
from genrec.training.loss import joint_loss, sequence_loss, words_loss
from genrec.training.pretrain import TrainProgress, TrainSettings, train_native
from genrec.training.text_answers import Answers, TextCorpus, TextTask, check_corpus
from genrec.training.train_bundle import train_bundle
from index.errors import TrainingError
from tests.genrec.test_pretrain import CODES, CONFIG, SETTINGS, cycle_histories
from tests.toy import toy_histories, toy_index

END, MARK, QUERY = 7, 8, 9
TEXT = replace(CONFIG, text_size=10, max_text=4)
ANSWERS = [
    [0, 1, END],
    [0, 2, END],
    [1, END],
    [2, 3, 4, END],
    [5, END],
    [],
]  # of the six items; the last has none
TASKS = (TextTask(MARK, Answers(ANSWERS), 2.0), TextTask(QUERY, Answers([one[-2:] for one in ANSWERS]), 1.0))
CORPUS = TextCorpus(TASKS)


def padded(histories: list[list[int]]) -> np.ndarray:
    width = max(map(len, histories))
    return np.array([[*one, *[-1] * (width - len(one))] for one in histories], np.int64)


# --- what is drawn -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=4),
    count=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_branches_stand_before_the_item_that_they_are_about(
    histories: list[list[int]], count: int, seed: int
) -> None:
    rows = padded(histories)
    drawn = CORPUS.draw(rows, count, np.random.default_rng(seed))
    if drawn is None:
        assert {item for one in histories for item in one} == {5} or count < 20
        return
    assert len(drawn.history) <= count
    drawn_rows = (getattr(drawn, name).tolist() for name in ("history", "known", "mark", "item", "answer"))
    for user, known, mark, item, answer in zip(*drawn_rows, strict=True):
        assert item == histories[user][known - 1]  # positions: the start, then items
        written = ANSWERS[item] if mark == MARK else ANSWERS[item][-2:]
        assert [token for token in answer if token >= 0] == written
        assert 1 <= known <= rows.shape[1], "inside the trunk, which ends before the last item"


def test_what_is_drawn_follows_the_weights_and_the_seed() -> None:
    rows = padded([[0, 1, 2, 3, 4, 0, 1, 2]] * 20)
    drawn = [CORPUS.draw(rows, 3000, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0] is not None
    assert drawn[1] is not None
    assert drawn[2] is not None
    assert torch.equal(drawn[0].answer, drawn[1].answer)
    assert not torch.equal(drawn[0].answer[:99], drawn[2].answer[:99])
    share = float((drawn[0].mark == MARK).float().mean())
    assert share == pytest.approx(2 / 3, abs=0.03)


def test_nothing_is_drawn_where_nothing_can_be_written() -> None:
    assert CORPUS.draw(padded([[5, 5, 5]]), 9, np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("corpus", "config", "message"),
    [
        (None, TEXT, "got none for 10 tokens"),
        (CORPUS, CONFIG, "got some for 0 tokens"),
        (TextCorpus([TextTask(MARK, Answers(ANSWERS[:5]), 1.0)]), TEXT, "each of 6 items, got 5"),
        (TextCorpus([TextTask(MARK, Answers([[]] * 6), 1.0)]), TEXT, "empty answers"),
        (TextCorpus([TextTask(MARK, Answers([[1] * 5] * 6), 1.0)]), TEXT, "at most 4 tokens, got 5"),
        (TextCorpus([TextTask(MARK, Answers([[10]] * 6), 1.0)]), TEXT, r"token ids in \[0, 10\), got 10"),
    ],
)
def test_a_corpus_that_does_not_fit_is_refused(
    corpus: TextCorpus | None, config: NativeConfig, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        check_corpus(corpus, 6, config)


# --- the loss ----------------------------------------------------------------------------------------------


def test_the_joint_loss_is_both_losses_and_its_gradient_is_theirs() -> None:
    model = NativeModel(TEXT, CODES).eval()
    rows = padded([[0, 1, 2, 3], [4, 0, 1, 1]])
    branches = CORPUS.draw(rows, 12, np.random.default_rng(3))
    assert branches is not None
    named = CORPUS.named(rows, np.random.default_rng(3), 9)
    assert named is not None
    joint = joint_loss(model, torch.from_numpy(rows), None, branches, named, 0.5)
    joint.backward()  # type: ignore[no-untyped-call]
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    codes = sequence_loss(model, torch.from_numpy(rows))
    trunk = Trunk()
    model.encode(torch.from_numpy(rows[:, :-1]), trunk)
    text = branch_loss(model, trunk, branches) + 0.5 * words_loss(model, named)
    (codes + 0.5 * text).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(joint, codes + 0.5 * text)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(together[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_items_are_asked_for_the_words_of_their_titles() -> None:
    rows = padded([[3, 0], [5, 2, 4]])
    named = CORPUS.named(rows, np.random.default_rng(0), 99)
    assert named is not None
    assert named.item.tolist() == [0, 2, 3, 4]  # each once, and 5 has no title
    words = [[token for token in one if token >= 0] for one in named.words.tolist()]
    assert words == [[0, 1], [1], [2, 3, 4], [5]]
    assert CORPUS.named(padded([[5, 5]]), np.random.default_rng(0), 9) is None
    model = NativeModel(TEXT, CODES).eval()
    assert model.text is not None
    with torch.no_grad():
        log_p = torch.log_softmax(
            model.text.logits(model.text.tell(model.item_vectors(named.item[None])[0])), 1
        )
        expected = -np.mean([float(one[own].mean()) for one, own in zip(log_p, words, strict=True)])
        assert float(words_loss(model, named)) == pytest.approx(expected, rel=1e-5)


# --- training ----------------------------------------------------------------------------------------------


def train(
    corpus: TextCorpus | None = CORPUS, config: NativeConfig = TEXT, **arguments: object
) -> NativeModel:
    offsets, items = cycle_histories()
    options = {"settings": replace(SETTINGS, text_branches=16), **arguments}
    return train_native(config, CODES, offsets, items, corpus=corpus, **options).model  # type: ignore[arg-type]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    def killed(at: TrainProgress) -> None:
        if at.step == 13:
            raise KeyboardInterrupt

    whole = train()
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=path, progress=killed)
    resumed = train(checkpoint=path, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    other = TextCorpus([replace(TASKS[0], weight=1.0), TASKS[1]])
    with pytest.raises(TrainingError, match="other texts"):
        train(other, checkpoint=path, resume=True)


def test_training_leaves_the_precision_of_products_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    train(settings=replace(SETTINGS, steps=1))
    assert torch.get_float32_matmul_precision() == before


def test_the_selected_weights_are_the_best_of_codes_and_text_together() -> None:
    figures = iter(
        [
            {"ndcg@10": 0.30, "token_probability": 0.30},
            {"ndcg@10": 0.29, "token_probability": 0.40},  # a little worse at codes, much better at text
            {"ndcg@10": 0.31, "token_probability": 0.30},
            {"ndcg@10": 0.10, "token_probability": 0.50},
        ]
    )
    offsets, items = cycle_histories()
    result = train_native(
        TEXT, CODES, offsets, items, corpus=CORPUS, settings=SETTINGS, validate=lambda model: next(figures)
    )
    assert result.best["ndcg@10"] == 0.29


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the toy catalog, trained until it knows what follows what."""
    index = toy_index()
    path = tmp_path_factory.mktemp("text") / "bundle"
    train_bundle(
        index,
        toy_histories(),
        path,
        settings=TrainSettings(steps=120, batch_targets=200, validations=2, text_branches=48),
        config=NativeConfig(
            code_sizes=index.level_sizes, hidden_size=32, layers=1, heads=2, head_size=32, dropout=0.0
        ),
        tasks=["semantic_id", "title", "query"],
    )
    return path


def test_one_bundle_answers_by_codes_titles_and_queries(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    ids = recommender.index.catalog.item_ids
    assert list(recommender.modes) == ["semantic_id", "title", "query"]
    for mode in recommender.modes:
        hits = 0
        for start in range(20):  # the next word of the genre is four items on
            history, target = ids[start : start + 16 : 4], ids[start + 16]
            answer = recommender.recommend(history, k=3, mode=mode)
            found = {item.item_id for item in answer.items}
            assert len(found) == len(answer.items) == 3
            hits += target in found
        assert hits >= 10, (mode, hits)  # chance finds one or two
    assert load_bundle(bundle).artifact.manifest["model"]["title_validation"].keys() == {
        "catalog",
        "vocabulary",
    }


def test_the_export_writes_what_the_model_in_torch_writes(bundle: Path) -> None:
    torch_says = Recommender.load(bundle, "torch")
    report = export_bundle(bundle, checks=1)
    assert report.worst.share <= 1e-4
    assert report.worst.case.split(":")[0] in ("semantic_id", "title")
    exported = Recommender.load(bundle, "onnx")
    history = torch_says.index.catalog.item_ids[4:8]
    for mode in torch_says.modes:
        ours, theirs = (one.recommend(history, k=5, mode=mode).items for one in (exported, torch_says))
        assert [item.item_id for item in ours] == [item.item_id for item in theirs], mode
        np.testing.assert_allclose([item.score for item in ours], [item.score for item in theirs], atol=1e-3)


def test_tasks_a_native_model_does_not_have_are_refused(bundle: Path, tmp_path: Path) -> None:
    index = load_bundle(bundle).index
    for tasks in (["title"], ["semantic_id", "code_of_title"], []):
        with pytest.raises(TrainingError, match="expected semantic_id, with or without title and query"):
            train_bundle(index, toy_histories(), tmp_path / "x", settings=TrainSettings(steps=1), tasks=tasks)
