"""TrieLogitsProcessor: any Hugging Face ``generate`` (greedy, sampling, beams) kept inside a trie.

Whoever has a generation loop can use our trie and our filters without our search: the processor masks, and
what it returns is what ``prefix_allowed_tokens_fn`` over a trie of dicts returns, for all rows at once. It
gives up what :mod:`genrec.search` gains: every row still scores its whole vocabulary, every forced token costs
a model call, nothing is certified. It keeps nothing between calls, so beams may be reordered at will, and it
knows no model.

    >>> import polars as pl, torch
    >>> from genrec import Catalog, IndexSettings, build_index, remove_items
    >>> from genrec.adapters.logits_processor import TrieLogitsProcessor
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> catalog = Catalog(pl.DataFrame({"item_id": ["a", "b", "c", "d"], "year": [1979, 1985, 1982, 1965],
    ...     "title": ["Alien", "Brazil", "Creepshow", "Dune"]}))
    >>> settings = IndexSettings(text_encoder="tfidf", levels=2, codebook_size=2)
    >>> index = remove_items(build_index(catalog, None, settings), ["b"])
    >>> words = 16  # the model's tokens from here on are the codes of the index
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=words + sum(index.level_sizes), hidden_size=8,
    ...     intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, bos_token_id=None, eos_token_id=None))
    >>> prompt, length = torch.tensor([[1, 3, 9]]), len(index.level_sizes)
    >>> processor = TrieLogitsProcessor.for_index(index, prompt_length=3, num_beams=2,
    ...     token_offset=words, where="year > 1970")
    >>> output = model.generate(prompt, attention_mask=torch.ones_like(prompt), num_beams=2,
    ...     num_return_sequences=2, max_new_tokens=length, pad_token_id=0, logits_processor=[processor])
    >>> item_of = dict(zip(map(tuple, index.level_tokens.tolist()), catalog.item_ids))
    >>> sorted(item_of[tuple(path)] for path in (output[:, 3:] - words).tolist())
    ['a', 'c']

Without an index, any token paths make a trie:

    >>> from index.trie import build_trie
    >>> trie = build_trie([[4, 5, 2], [4, 6, 7, 2], [8, 2]])  # token 2 ends every path
    >>> output = model.generate(prompt, attention_mask=torch.ones_like(prompt), num_beams=3,
    ...     num_return_sequences=3, max_new_tokens=4, eos_token_id=2, pad_token_id=2,
    ...     logits_processor=[TrieLogitsProcessor(trie, prompt_length=3, num_beams=3, eos_token_id=2)])
    >>> sorted(output[:, 3:].tolist())
    [[4, 5, 2, 2], [4, 6, 7, 2], [8, 2, 2, 2]]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor

from index.errors import DecoderError, RequestError
from index.filter_expression import Where
from index.item_filter import Allowed, AllowedBatch
from index.item_index import ItemIndex
from index.trie import TokenTrie
from index.types import BoolArray, Int64Array, IntArray, ItemId
from index.walk import Places, TrieWalk

# What Hugging Face's beam search gives a beam that does not count (transformers 5.23, `_beam_search`); kept
# inside the range of half precision below. Finite, so a softmax over it is one and not nan.
_LOWEST = -1e9


class TrieLogitsProcessor(LogitsProcessor):
    """Allows each row the tokens that lead on to an allowed item, and no others.

    A row in a forced tail is allowed its one next token. A row whose path has ended, whose prefix is on no
    path, or below which the filter leaves nothing, is allowed only ``eos_token_id``. No row is ever wholly
    -inf: where the model or an earlier processor has forbidden all that the trie allows, those tokens get the
    lowest finite score.

    Args:
        trie: the catalog's token paths.
        prompt_length: the column where answers begin: ``input_ids.shape[1]``, left padding included (1 for the
            decoder of an encoder-decoder). One per request where some prompts already hold the first tokens of
            the answer.
        num_beams: rows of one request: ``num_beams`` of ``generate``, or ``num_return_sequences`` if sampling.
        allowed: what each request may get: one rule for all, or one per request; None allows every item of
            the trie, removed ones among them, which :meth:`for_index` leaves out.
        token_offset: added to a token of the trie to get its id in the model's vocabulary.
        eos_token_id: what a row without a next token emits. May be left out for codes of one length with
            ``max_new_tokens`` equal to it: only beams that found no path then come that far, token 0 is put in,
            and their score stays lowest.
    """

    def __init__(
        self,
        trie: TokenTrie,
        prompt_length: int | Sequence[int],
        num_beams: int = 1,
        allowed: Allowed | Sequence[Allowed] | None = None,
        token_offset: int = 0,
        eos_token_id: int | None = None,
    ) -> None:
        if num_beams < 1:
            raise RequestError(f"expected num_beams >= 1, got {num_beams}")
        self._walk = TrieWalk(trie)
        self._prompt_length = np.asarray(prompt_length, np.int64)
        self._num_beams = num_beams
        self._rules = len(allowed) if isinstance(allowed, Sequence) else None  # None: the same for all
        each = [allowed] if isinstance(allowed, Allowed) else allowed
        self._allowed = None if each is None else AllowedBatch(each, len(trie))
        self._token_offset = token_offset
        self._eos = 0 if eos_token_id is None else eos_token_id
        self._highest = int(trie.path_tokens.max(initial=0)) + token_offset

    @classmethod
    def for_index(
        cls,
        index: ItemIndex,
        prompt_length: int | Sequence[int],
        num_beams: int = 1,
        *,
        where: Where | None = None,
        histories: Sequence[Sequence[ItemId]] | None = None,
        token_offset: int = 0,
    ) -> TrieLogitsProcessor:
        """For a model whose vocabulary has the semantic IDs of an index: its answers are never removed items.

        Args:
            index: what :func:`genrec.load_index` opens, or the ``index`` of a recommender.
            prompt_length: as for the class.
            num_beams: as for the class.
            where: a filter over catalog fields, for all requests (:mod:`index.filter_expression`).
            histories: the items each request has seen, which it will not get; one list per request. Ids that
                are not in the catalog are not used.
            token_offset: the model's token for the first code of the first level; the others follow it in the
                order of ``index.level_tokens``. Answers have ``len(index.level_sizes)`` tokens.

        Raises:
            FilterError: ``where`` is no filter over this catalog.
        """
        rules = index.rules.allowed(where)
        if histories is None:
            return cls(index.trie, prompt_length, num_beams, rules, token_offset)
        known = [rows[rows >= 0] for rows in map(index.catalog.rows_of, histories)]
        each = [index.rules.allowed(where, exclude_rows=rows) for rows in known]
        return cls(index.trie, prompt_length, num_beams, each, token_offset)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """``scores`` [R, V] with -inf wherever the trie does not go on after the answer in ``input_ids`` [R, T].

        Raises:
            RequestError: the number of rows is not ``num_beams`` times the number of requests.
            DecoderError: a token of the trie is outside the vocabulary.
        """
        rows, vocabulary = scores.shape
        if max(self._highest, self._eos) >= vocabulary:
            raise DecoderError(
                f"expected the tokens of the trie below the vocabulary's {vocabulary}, got "
                f"{max(self._highest, self._eos)} (token_offset {self._token_offset}); use the tokenizer the "
                "index was built with"
            )
        request = self._request_of_rows(rows)
        row, token = self._next_tokens(request, self._places(request, input_ids))
        at = torch.from_numpy(row).to(scores.device), torch.from_numpy(token).to(scores.device)
        masked = torch.full_like(scores, -torch.inf)
        masked[at] = scores[at]
        unsatisfied = masked.amax(dim=-1).isneginf()[at[0]]
        lowest = max(_LOWEST, torch.finfo(scores.dtype).min)
        masked[at] = masked[at].masked_fill(unsatisfied, lowest)
        return masked  # type: ignore[return-value]

    def _request_of_rows(self, rows: int) -> Int64Array:
        """int64[R], non-decreasing."""
        requests, rest = divmod(rows, self._num_beams)
        per_request = self._prompt_length.size if self._prompt_length.ndim else requests
        expected = requests if self._rules is None else self._rules
        if rest or requests != expected or requests != per_request:
            raise RequestError(
                f"expected {self._num_beams} rows for each request, got {rows} rows, "
                f"{'no' if self._rules is None else self._rules} rules and "
                f"{self._prompt_length.size} prompt lengths; num_beams is the number of rows per request"
            )
        return np.arange(rows) // self._num_beams

    def _places(self, request: Int64Array, input_ids: torch.LongTensor) -> Places:
        """Where each row's answer stands, walked from the root: one vectorised step per token of the longest."""
        begin = np.broadcast_to(self._prompt_length, request.max(initial=-1) + 1)[request]
        first = int(begin.min(initial=input_ids.shape[1]))
        answer = input_ids[:, first:].cpu().numpy() - self._token_offset
        places = self._walk.root(len(request))
        for column in range(answer.shape[1]):
            moved = self._walk.step(places, answer[:, column])
            begun = begin <= first + column
            places = Places(
                np.where(begun, moved.node, places.node),
                np.where(begun, moved.end, places.end),
                np.where(begun, moved.depth, places.depth),
            )
        return places

    def _next_tokens(self, request: Int64Array, places: Places) -> tuple[Int64Array, Int64Array]:
        """Every allowed (row, vocabulary id), each row at least once, in no order."""
        inside = np.flatnonzero(places.node >= 0)
        here = places.take(inside)
        children = self._walk.children(here)
        leaf = np.flatnonzero(self._walk.is_leaf(here))
        leaf = leaf[self._walk.tail_length(here.take(leaf)) > 0]
        at_leaf = here.take(leaf)
        start = self._walk.start(at_leaf)
        row, token = [], []
        for below, tokens, start_rank, end_rank in (
            (children.row, children.token, self._walk.start(children.places), children.places.end),
            (leaf, self._walk.path_slices(start, at_leaf.depth, at_leaf.depth + 1), start, at_leaf.end),
        ):
            live = self._is_allowed(request[inside[below]], start_rank, end_rank)
            row.append(inside[below[live]])
            token.append(tokens[live].astype(np.int64) + self._token_offset)
        without = np.ones(len(request), bool)
        without[np.concatenate(row)] = False
        row.append(np.flatnonzero(without))
        token.append(np.full(int(without.sum()), self._eos))
        return np.concatenate(row), np.concatenate(token)

    def _is_allowed(self, request: Int64Array, start: IntArray, end: IntArray) -> BoolArray:
        if self._allowed is None:
            return np.ones(len(request), bool)
        rule = request if self._rules is not None else np.zeros_like(request)
        return self._allowed.count(rule, start, end) > 0
