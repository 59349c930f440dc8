"""TrieLogitsProcessor is Hugging Face's own prefix constraint over a trie of dicts, at once and with filters."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel
from transformers.generation.logits_process import PrefixConstrainedLogitsProcessor

from genrec.adapters import logits_processor
from genrec.adapters.logits_processor import TrieLogitsProcessor
from index.errors import DecoderError, RequestError
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.maintenance import remove_items
from index.trie import build_trie
from tests.genrec import tiny_models
from tests.genrec.tiny_models import VOCABULARY
from tests.toy import toy_index

EOS = VOCABULARY - 1
PAD = 1
OFFSET = 10

Path = tuple[int, ...]


def next_token_function(
    paths: Sequence[Path], width: int, offset: int = 0
) -> Callable[[int, torch.Tensor], list[int]]:
    """``prefix_allowed_tokens_fn`` of a trie of dicts; EOS where there is no way on."""
    following: dict[Path, set[int]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            following.setdefault(path[:depth], set()).add(token)

    def allowed(_: int, sequence: torch.Tensor) -> list[int]:
        prefix = tuple(token - offset for token in sequence[width:].tolist())
        return [token + offset for token in sorted(following.get(prefix, ()))] or [EOS]

    return allowed


def random_titles(rng: np.random.Generator, count: int = 40) -> list[Path]:
    """Distinct, ended by EOS, crowded at the start: some part late, some never."""
    titles = {
        (*(np.minimum(rng.geometric(0.4, rng.integers(1, 6)), EOS - 1)).tolist(), EOS) for _ in range(count)
    }
    return sorted(titles)


def left_padded(rng: np.random.Generator, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.from_numpy(rng.integers(2, EOS, length))
        mask[row, -length:] = 1
    return ids, mask


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen3"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_models.MODELS[request.param]()


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(logits_processor)
    assert (result.attempted, result.failed) == (18, 0)


paths_strategy = st.one_of(
    st.lists(st.lists(st.integers(1, 4), max_size=5).map(lambda path: (*path, 0)), min_size=1, max_size=25),
    st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=25),
)


@settings(max_examples=200, deadline=None)
@given(paths=paths_strategy, seed=st.integers(0, 2**32 - 1), answered=st.integers(0, 7))
def test_every_score_is_that_of_the_prefix_constraint(paths: list[Path], seed: int, answered: int) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 6, (12, answered)) + OFFSET
    for row in range(0, 12, 2):  # a random answer leaves the trie early: every other one follows a path
        path = np.array(paths[rng.integers(len(paths))])[:answered]
        answers[row, : len(path)] = path + OFFSET
    ids = torch.from_numpy(np.concatenate([rng.integers(0, VOCABULARY, (12, 3)), answers], axis=1))
    scores = torch.from_numpy(rng.normal(size=(12, VOCABULARY)).astype(np.float32))
    theirs = PrefixConstrainedLogitsProcessor(next_token_function(paths, 3, OFFSET), num_beams=4)
    ours = TrieLogitsProcessor(
        build_trie(paths), prompt_length=3, num_beams=4, token_offset=OFFSET, eos_token_id=EOS
    )
    torch.testing.assert_close(ours(ids, scores), theirs(ids, scores), rtol=0, atol=0)


@pytest.mark.parametrize("beams", [1, 5])
def test_titles_generate_as_under_a_trie_of_dicts(model: PreTrainedModel, beams: int) -> None:
    rng = np.random.default_rng([1, beams])
    titles = random_titles(rng)
    ids, mask = left_padded(rng, [5, 1, 8])
    settings_of = {
        "attention_mask": mask,
        "num_beams": beams,
        "num_return_sequences": beams,
        "do_sample": False,
        "max_new_tokens": max(map(len, titles)),
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    expected = model.generate(ids, prefix_allowed_tokens_fn=next_token_function(titles, 8), **settings_of)
    ours = TrieLogitsProcessor(build_trie(titles), prompt_length=8, num_beams=beams, eos_token_id=EOS)
    got = model.generate(ids, logits_processor=[ours], **settings_of)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("beams", [1, 5])
def test_codes_of_one_length_need_no_eos(model: PreTrainedModel, beams: int) -> None:
    rng = np.random.default_rng([2, beams])
    codes = sorted({tuple(code) for code in np.minimum(rng.geometric(0.25, (60, 3)) - 1, 25).tolist()})
    ids, mask = left_padded(rng, [4, 6])
    got = model.generate(
        ids,
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        max_new_tokens=3,
        eos_token_id=None,
        pad_token_id=PAD,
        logits_processor=[
            TrieLogitsProcessor(build_trie(np.array(codes)), 6, num_beams=beams, token_offset=OFFSET)
        ],
    )
    paths = [tuple(row) for row in (got[:, 6:] - OFFSET).tolist()]
    assert set(paths) <= set(codes)
    assert len(set(paths[:beams])) == beams


def test_sampling_yields_catalog_paths_and_reaches_all_of_them() -> None:
    rng = np.random.default_rng(3)
    titles = random_titles(rng, 12)
    ids, mask = left_padded(rng, [5, 2])
    torch.manual_seed(0)
    got = tiny_models.llama().generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        temperature=4.0,
        top_k=0,
        num_return_sequences=200,
        max_new_tokens=max(map(len, titles)),
        eos_token_id=EOS,
        pad_token_id=PAD,
        logits_processor=[
            TrieLogitsProcessor(build_trie(titles), prompt_length=5, num_beams=200, eos_token_id=EOS)
        ],
    )
    found = {tuple(row[: row.index(EOS) + 1]) for row in got[:, 5:].tolist()}
    assert found == set(titles)


@pytest.mark.parametrize("beams", [1, 4])
def test_each_request_is_kept_to_its_own_items(model: PreTrainedModel, beams: int) -> None:
    rng = np.random.default_rng([4, beams])
    titles = random_titles(rng)
    trie = build_trie(titles)
    masks = [rng.random(len(trie)) < share for share in (0.5, 0.2, 1.0)]
    rules = [Allowed.build(mask) for mask in masks[:2]] + [Allowed.build(excluded=np.arange(0, len(trie), 2))]
    masks[2][::2] = False
    ids, attention = left_padded(rng, [3, 6, 1])
    processor = TrieLogitsProcessor(trie, 6, num_beams=beams, allowed=rules, eos_token_id=EOS)
    got = model.generate(
        ids,
        attention_mask=attention,
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        max_new_tokens=max(map(len, titles)),
        eos_token_id=EOS,
        pad_token_id=PAD,
        logits_processor=[processor],
    )
    for row, answer in enumerate(got[:, 6:].tolist()):
        path = answer[: answer.index(EOS) + 1]
        rank = next(rank for rank in range(len(trie)) if trie.path(rank) == path)
        assert masks[row // beams][rank]


def test_one_rule_serves_all_requests_as_one_each_does() -> None:
    trie = build_trie([[2, 3], [2, 4], [5, 6]])
    rule = Allowed.build(np.array([False, True, True]))
    ids = torch.tensor([[9, 2], [9, 9], [9, 2]])
    starts = [1, 2, 1]
    shared = TrieLogitsProcessor(trie, starts, allowed=rule)(ids, torch.zeros(3, 10))
    each = TrieLogitsProcessor(trie, starts, allowed=[rule] * 3)(ids, torch.zeros(3, 10))
    torch.testing.assert_close(shared, each, rtol=0, atol=0)
    assert torch.isfinite(shared).nonzero().tolist() == [[0, 4], [1, 2], [1, 5], [2, 4]]


def items_drawn(index: ItemIndex, **wishes: object) -> list[set[str]]:
    """What 1500 draws of a nearly even model give each of two requests."""
    ids, mask = left_padded(np.random.default_rng(5), [3, 2])
    torch.manual_seed(0)
    answers = tiny_models.llama(vocab_size=OFFSET + sum(index.level_sizes)).generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        temperature=100.0,
        top_k=0,
        num_return_sequences=1500,
        max_new_tokens=len(index.level_sizes),
        eos_token_id=None,
        pad_token_id=PAD,
        logits_processor=[
            TrieLogitsProcessor.for_index(
                index, prompt_length=3, num_beams=1500, token_offset=OFFSET, **wishes
            )
        ],
    )
    item_of = dict(zip(map(tuple, index.level_tokens.tolist()), index.catalog.item_ids, strict=True))
    drawn = [item_of[tuple(path)] for path in (answers[:, 3:] - OFFSET).tolist()]
    return [set(drawn[:1500]), set(drawn[1500:])]


def test_removed_items_never_come_out_of_an_index() -> None:
    index = toy_index()
    every = {item.item_id for item in index.catalog}
    assert items_drawn(index) == [every, every]
    gone = {"i3", "i4", "i20"}
    less = remove_items(index, sorted(gone))
    assert items_drawn(less) == [every - gone] * 2
    horror = {f"i{row}" for row in range(2, 40, 4)}
    assert items_drawn(remove_items(index, ["i6"]), where="genre == 'horror'") == [horror - {"i6"}] * 2
    seen = [["i1", "nobody"], ["i2", "i3"]]
    assert items_drawn(less, histories=seen) == [every - gone - {"i1"}, every - gone - {"i2"}]


def test_a_request_that_may_have_nothing_ends_at_once() -> None:
    trie = build_trie([[2, 3], [4, 5]])
    rules = [Allowed(), Allowed.build(np.zeros(2, bool))]
    ids = torch.tensor([[7], [7]])
    scores = TrieLogitsProcessor(trie, 1, allowed=rules, eos_token_id=0)(ids, torch.zeros(2, 6))
    assert torch.isfinite(scores).nonzero().tolist() == [[0, 2], [0, 4], [1, 0]]


def test_prompts_that_hold_the_start_of_the_answer() -> None:
    trie = build_trie([[2, 3, 1], [2, 4, 1], [5, 1]])
    ids = torch.tensor([[9, 9, 2], [9, 9, 9], [9, 5, 1]])
    scores = TrieLogitsProcessor(trie, [2, 3, 1], eos_token_id=0)(ids, torch.zeros(3, 6))
    assert torch.isfinite(scores).nonzero().tolist() == [[0, 3], [0, 4], [1, 2], [1, 5], [2, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_row_is_wholly_forbidden(dtype: torch.dtype) -> None:
    """An earlier processor may forbid all that the trie allows; a softmax over such a row would be nan."""
    trie = build_trie([[2, 3], [4, 5]])
    scores = torch.zeros(2, 6, dtype=dtype)
    scores[0, [2, 4]] = -torch.inf
    masked = TrieLogitsProcessor(trie, 1)(torch.tensor([[7], [7]]), scores)
    probabilities = masked.float().softmax(-1)
    assert probabilities.tolist() == [[0, 0, 0.5, 0, 0.5, 0]] * 2
    assert masked[0].amax() < -6e4 <= masked[1].amax()
    assert scores[0, 0] == 0  # what came in is left alone


class TestRefusals:
    def test_a_vocabulary_that_is_too_small(self) -> None:
        processor = TrieLogitsProcessor(build_trie([[2, 3]]), 1, token_offset=5)
        with pytest.raises(DecoderError, match="below the vocabulary's 8, got 8"):
            processor(torch.tensor([[7]]), torch.zeros(1, 8))

    @pytest.mark.parametrize(
        "processor",
        [
            TrieLogitsProcessor(build_trie([[2]]), 1, num_beams=2),
            TrieLogitsProcessor(build_trie([[2]]), 1, allowed=[Allowed()] * 2),
            TrieLogitsProcessor(build_trie([[2]]), [1, 1]),
        ],
    )
    def test_rows_that_do_not_fit_the_requests(self, processor: TrieLogitsProcessor) -> None:
        with pytest.raises(RequestError, match="num_beams is the number of rows per request"):
            processor(torch.tensor([[7]] * 3), torch.zeros(3, 8))

    def test_no_beams(self) -> None:
        with pytest.raises(RequestError, match="num_beams >= 1, got 0"):
            TrieLogitsProcessor(build_trie([[2]]), 1, num_beams=0)
