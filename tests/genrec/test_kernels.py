"""The fused step: the compiled kernel against the numpy one, and both against one child after another."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.kernels import NumpyStep, StepRules, device_kernel, step_kernel
from genrec.kernels.numba_step import NumbaStep
from genrec.kernels.torch_step import TorchStep
from index.errors import IdentifierError
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie
from index.types import Float64Array, Int64Array
from index.walk import Places, TrieWalk

VOCABULARY = 7
KERNELS = {"numpy": NumpyStep, "numba": NumbaStep, "torch": TorchStep}

titles = st.lists(
    st.lists(st.integers(1, 6), max_size=5).map(lambda path: [*path, 0]), min_size=1, max_size=40
)
codes = st.integers(1, 4).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, 6), min_size=length, max_size=length), min_size=1, max_size=40
    )
)


def every_place(trie: TokenTrie) -> Places:
    """All nodes of a trie with their ends and depths, in the order of their ids."""
    walk = TrieWalk(trie)
    level, levels = walk.root(1), []
    while len(level):
        levels.append(level)
        level = walk.children(level).places
    return Places(*(np.concatenate([getattr(one, name) for one in levels]) for name in Places.__slots__))


def frontier(trie: TokenTrie, rng: np.random.Generator, requests: int) -> tuple[Int64Array, Places]:
    """Some nodes for each of some requests, leaves among them, in no order; a request may have none."""
    places = every_place(trie)
    picked = [rng.permutation(len(places))[: rng.integers(0, 6)] for _ in range(requests)]
    request = np.repeat(np.arange(requests), [len(one) for one in picked])
    return request, places.take(np.concatenate(picked).astype(np.int64))


def some_rules(rng: np.random.Generator, requests: int, items: int) -> StepRules:
    allowed = [
        Allowed.build(
            None if rng.random() < 0.3 else rng.random(items) < rng.choice([0.0, 0.3, 0.9]),
            rng.integers(0, items, rng.integers(0, 4)),
        )
        for _ in range(requests)
    ]
    if requests > 1 and rng.random() < 0.5:
        allowed[1] = Allowed(allowed[0].bitmap)  # two requests with one bitmap
    return StepRules(
        beam=rng.choice([0, 1, 2, 5, 1000], requests),
        items=rng.choice([0, 1, 3, 1000], requests),
        allowed=allowed,
        look_ahead=rng.random(requests) < 0.5,
        catalog=bool(rng.random() < 0.5),
    )


def one_by_one(
    trie: TokenTrie,
    rules: StepRules,
    request: Int64Array,
    places: Places,
    score: Float64Array,
    logits: np.ndarray,
    normalizer: np.ndarray | None,
) -> tuple[list[tuple[int, int, int, float]], int, list[float]]:
    """The contract of a step, written as loops over python numbers: (row, node, end, score), prefixes, bound."""
    going: dict[int, list] = {b: [] for b in range(len(rules.beam))}
    ended: dict[int, list] = {b: [] for b in range(len(rules.beam))}
    for row, (b, node, stop, depth) in enumerate(
        zip(*(a.tolist() for a in (request, places.node, places.end, places.depth)), strict=True)
    ):
        children = range(int(trie.first_child[node]), int(trie.first_child[node + 1]))
        mine = [float(logits[row, trie.token[child]]) for child in children]
        if not mine:
            continue
        norm = 0.0 if normalizer is None else float(normalizer[row])
        if rules.catalog:
            norm = max(mine) + math.log(math.fsum(math.exp(x - max(mine)) for x in mine))
        for child, logit in zip(children, mine, strict=True):
            start = int(trie.span_start[child])
            end = stop if child == children[-1] else int(trie.span_start[child + 1])
            rule = rules.allowed[b]
            alive = [
                r
                for r in range(start, end)
                if (rule.bitmap is None or rule.bitmap.contains(np.array(r)))
                and r not in rule.excluded.tolist()
            ]
            if not alive:
                continue
            value = score[row] + min(logit - norm, 0.0)
            leaf = trie.first_child[child] == trie.first_child[child + 1]
            if leaf and (rules.catalog or len(trie.path(start)) == depth + 1):
                ended[b].append((value - math.log(end - start), (row, child, end, value)))
            else:
                key = value + (math.log(len(alive) / (end - start)) if rules.look_ahead[b] else 0.0)
                going[b].append((key, (row, child, end, value)))
    prefixes, leaves, bound = [], [], []
    for b in going:
        best = sorted(range(len(going[b])), key=lambda i: (-going[b][i][0], i))
        kept = set(best[: rules.beam[b]])
        prefixes += [one for i, (_, one) in enumerate(going[b]) if i in kept]
        bound.append(max((one[3] for i, (_, one) in enumerate(going[b]) if i not in kept), default=-np.inf))
        floor = sorted((own for own, _ in ended[b]), reverse=True)[: rules.items[b]]
        leaves += [one for own, one in ended[b] if floor and own >= floor[-1]]
    return prefixes + leaves, len(prefixes), bound


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@settings(max_examples=200, deadline=None)
@given(titles | codes, st.integers(0, 2**20), st.integers(1, 4), st.booleans())
def test_a_step_is_its_contract_child_by_child(kernel, paths, seed, requests, dense):
    rng = np.random.default_rng(seed)
    trie = build_trie(paths)
    rules = some_rules(rng, requests, len(trie))
    request, places = frontier(trie, rng, requests)
    score = -rng.exponential(1.0, len(request))
    logits = rng.normal(0, 2, (len(request), VOCABULARY)).astype(np.float32)
    normalizer = None if rng.random() < 0.3 else np.abs(rng.normal(3, 1, len(request))).astype(np.float32)
    step = kernel(trie, rules)
    edges = step.edges(places.node)
    given_logits = logits if dense else logits[edges.row, edges.token]
    result = step.step(request, places, score, given_logits, normalizer)
    expected, prefixes, bound = one_by_one(trie, rules, request, places, score, logits, normalizer)
    assert result.prefixes == prefixes
    found = zip(result.row.tolist(), result.node.tolist(), result.end.tolist(), strict=True)
    assert list(found) == [one[:3] for one in expected]
    np.testing.assert_allclose(result.score, [one[3] for one in expected], atol=1e-6)
    np.testing.assert_allclose(result.bound, bound, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(titles | codes, st.integers(0, 2**20), st.booleans())
def test_kernels_break_ties_alike(paths, seed, catalog):
    """A model that knows nothing: all logits equal, so only the order of the edges decides."""
    rng = np.random.default_rng(seed)
    trie = build_trie(paths)
    rules = replace(some_rules(rng, 3, len(trie)), catalog=catalog)
    request, places = frontier(trie, rng, 3)
    logits = np.full((len(request), VOCABULARY), -1.5, np.float32)
    score = np.full(len(request), -2.0)
    reference, *others = (
        kernel(trie, rules).step(request, places, score, logits) for kernel in KERNELS.values()
    )
    for other in others:
        assert reference.prefixes == other.prefixes
        for name in ("row", "node", "end"):
            np.testing.assert_array_equal(getattr(reference, name), getattr(other, name))


@pytest.mark.parametrize("seed", range(24))
def test_kernels_agree_on_a_wide_frontier(seed):
    """Rows of hundreds of children for many beams, as toys have not: whole blocks, early cuts, full rooms."""
    rng = np.random.default_rng(seed)
    vocabulary, requests = int(rng.choice([90, 256, 700])), 3
    tokens = (rng.random((20_000, 3)) ** rng.choice([1, 3]) * vocabulary).astype(np.int64)
    trie = build_trie(
        tokens if seed % 2 else [[*row[: rng.integers(1, 4)], vocabulary] for row in tokens.tolist()]
    )
    vocabulary += 1
    walk = TrieWalk(trie)
    level = walk.children(walk.root(1)).places
    deeper = walk.children(level).places
    level = level if seed % 3 else deeper
    rows = np.sort(rng.integers(0, requests, 120))
    places = level.take(rng.integers(0, len(level), len(rows)))
    logits = rng.normal(0, 2, (len(rows), vocabulary)).astype(np.float32)
    score = -rng.exponential(1.0, len(rows))
    if seed % 4 == 0:  # so coarse that many paths score alike, and some are impossible
        logits, score = np.round(logits), np.round(score * 2)
        logits[rng.random(logits.shape) < 0.02] = -np.inf
    rules = replace(
        some_rules(rng, requests, len(trie)),
        beam=rng.choice([1, 20, 70, 10_000], requests),
        items=rng.choice([1, 20, 70, 10_000], requests),
    )
    for kind in (rules, replace(rules, allowed=[Allowed()] * requests)):
        reference = NumpyStep(trie, kind)
        edges = reference.edges(places.node)
        sparse = logits[edges.row, edges.token]
        for kernel, given_logits in product((NumbaStep, TorchStep), (logits, sparse)):
            expected = reference.step(rows, places, score, given_logits)
            result = kernel(trie, kind).step(rows, places, score, given_logits)
            assert result.prefixes == expected.prefixes
            for name in ("row", "node", "end"):
                np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
            np.testing.assert_allclose(result.score, expected.score, atol=1e-6)
            np.testing.assert_allclose(result.bound, expected.bound, atol=1e-6)


def rules_for(requests: int, beam: int, items: int, catalog: bool = True) -> StepRules:
    return StepRules(
        np.full(requests, beam),
        np.full(requests, items),
        [Allowed()] * requests,
        np.zeros(requests, bool),
        catalog,
    )


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("largest", [200, 60_000, 100_000])
def test_every_width_of_the_arrays(kernel, largest):
    """uint8, uint16 and uint32 tokens and node ids; wide enough for growth, eviction and the long sort."""
    paths = np.random.default_rng(0).integers(0, largest, (largest, 2))
    paths[0, 0] = largest
    trie = build_trie(paths)
    root = TrieWalk(trie).root(1)
    score = -np.random.default_rng(1).exponential(1.0, (1, largest + 1)).astype(np.float32)
    result = kernel(trie, rules_for(1, 100, 50, catalog=False)).step(
        np.zeros(1, np.int64), root, np.zeros(1), score
    )
    children = TrieWalk(trie).children(root)
    inner = ~TrieWalk(trie).is_leaf(children.places) | True  # no path ends after one of two tokens
    best = np.sort(np.argsort(-score[0, children.token[inner]], kind="stable")[:100])
    np.testing.assert_array_equal(result.node, children.places.node[best])
    rest = np.delete(score[0, children.token], best)
    assert result.bound[0] == (rest.max() if len(rest) else -np.inf)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_more_ended_paths_than_the_buffer_holds(kernel):
    """A thousand leaves below the root: the kernel's buffer of 256 is compacted, then grows."""
    trie = build_trie(np.arange(1000)[:, None])
    root = TrieWalk(trie).root(1)
    logits = np.linspace(-9, 0, 1000, dtype=np.float32)[None]  # rising: every leaf beats all before it
    for items in (10, 400, 5000):
        result = kernel(trie, rules_for(1, 20, items)).step(np.zeros(1, np.int64), root, np.zeros(1), logits)
        assert (result.prefixes, result.row.tolist()) == (0, [0] * min(items, 1000))
        assert result.node.tolist() == list(range(1001 - min(items, 1000), 1001))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_an_empty_frontier_is_an_empty_step(kernel):
    trie = build_trie([[1, 2], [1, 3]])
    nowhere = Places(*(np.zeros(0, np.int64) for _ in range(3)))
    step = kernel(trie, rules_for(2, 5, 5))
    result = step.step(np.zeros(0, np.int64), nowhere, np.zeros(0), np.zeros((0, 4), np.float32))
    assert (len(result.row), result.prefixes, result.bound.tolist()) == (0, 0, [-np.inf, -np.inf])
    assert len(step.edges(nowhere.node).row) == 0


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_an_impossible_token_is_last_and_no_nan(kernel):
    trie = build_trie([[0, 1], [0, 2], [1, 1], [1, 2]])
    logits = np.array([[-np.inf, 0.0, 0.0]], np.float32)
    result = kernel(trie, rules_for(1, 5, 5)).step(
        np.zeros(1, np.int64), TrieWalk(trie).root(1), np.zeros(1), logits
    )
    assert result.score.tolist() == [-np.inf, 0.0]


def test_a_compiled_kernel_keeps_alive_what_it_points_at():
    """Its arrays cross as addresses: a trie and a filter that nobody else holds must still be there."""

    def made() -> NumbaStep:
        allowed = Allowed.build(np.arange(200) % 2 == 0, np.arange(0, 200, 4))
        return NumbaStep(
            build_trie(np.arange(200)[:, None]), replace(rules_for(1, 9, 300), allowed=[allowed])
        )

    kernels = [made() for _ in range(20)]
    gc.collect()
    _overwritten = [np.full(size, 7, np.uint32) for size in (8, 50, 100, 201, 202, 400) for _ in range(50)]
    root = Places(np.zeros(1, np.int64), np.full(1, 200), np.zeros(1, np.int64))
    for kernel in kernels:
        result = kernel.step(np.zeros(1, np.int64), root, np.zeros(1), np.zeros((1, 200), np.float32))
        assert (result.end - 1).tolist() == list(range(2, 200, 4))


def test_requests_cannot_leak_into_each_other():
    """Two requests at one node with opposite filters share no child."""
    trie = build_trie(np.arange(8)[:, None])
    even = np.arange(8) % 2 == 0
    rules = replace(rules_for(2, 8, 8), allowed=[Allowed.build(even), Allowed.build(~even)])
    result = NumbaStep(trie, rules).step(
        np.arange(2), TrieWalk(trie).root(2), np.zeros(2), np.zeros((2, 8), np.float32)
    )
    assert (result.end[result.row == 0] - 1).tolist() == [0, 2, 4, 6]
    assert (result.end[result.row == 1] - 1).tolist() == [1, 3, 5, 7]


def test_a_trie_beyond_32_bits_is_refused():
    trie = build_trie([[1], [2**40]])
    with pytest.raises(IdentifierError, match=r"fewer than 2\*\*32"):
        NumbaStep(trie, rules_for(1, 1, 1))
    assert isinstance(step_kernel(build_trie([[1]]), rules_for(1, 1, 1)), NumbaStep)


def test_slots_without_an_edge_are_masked():
    """The device's step has room for more edges than there are, and gives the same choice."""
    rng = np.random.default_rng(0)
    trie = build_trie(rng.integers(0, 7, (200, 3)))
    places = every_place(trie).take(np.arange(1, 30))
    request = np.sort(rng.integers(0, 4, len(places)))
    rules = some_rules(rng, 4, len(trie))
    logits = rng.normal(0, 2, (len(places), VOCABULARY)).astype(np.float32)
    score = -rng.exponential(1.0, len(places))
    step = device_kernel(trie, "cpu")(rules)
    assert isinstance(step, TorchStep)
    expected = NumpyStep(trie, rules).step(request, places, score, logits)
    frontier = [
        torch.from_numpy(one) for one in (request, places.node, places.end, places.depth, score, logits)
    ]
    chosen = step.choose(*frontier, slots=len(places) * VOCABULARY)
    picked = torch.cat([torch.nonzero(one)[:, 0] for one in (chosen.going, chosen.ended)])
    assert int(chosen.going.sum()) == expected.prefixes
    for name in ("row", "node", "end"):
        np.testing.assert_array_equal(getattr(chosen, name)[picked], getattr(expected, name))
    np.testing.assert_allclose(chosen.score[picked], expected.score, atol=1e-6)
    np.testing.assert_allclose(chosen.bound, expected.bound, atol=1e-6)


def test_the_device_step_asks_nothing_of_the_host():
    """On torch's meta device tensors have shapes and no numbers: whatever looked at a number would raise."""
    trie = build_trie(np.random.default_rng(0).integers(0, 7, (200, 3)))
    rules = some_rules(np.random.default_rng(1), 4, len(trie))
    for catalog in (True, False):
        step = device_kernel(trie, "meta")(replace(rules, catalog=catalog))
        rows = [torch.zeros(9, dtype=torch.int64, device="meta") for _ in range(4)]
        score = torch.zeros(9, dtype=torch.float64, device="meta")
        logits = torch.zeros((9, VOCABULARY), device="meta")
        chosen = step.choose(*rows, score, logits, logits[:, 0], slots=50)
        assert chosen.going.shape == chosen.score.shape == (50,)
        with pytest.raises(NotImplementedError, match="meta tensor"):  # torch says it: there are no numbers
            chosen.bound.cpu()
