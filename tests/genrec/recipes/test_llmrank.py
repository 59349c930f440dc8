"""Bootstrapping by cyclic shifts: what cancels, and what stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.recipes import llm_rank
from genrec.recipes.planted import films, planted_recommender
from index.errors import RequestError

IDS, TITLES = films().catalog.item_ids, films().catalog.titles


@settings(max_examples=8, deadline=None)
@given(
    relevance=st.lists(st.floats(-3, 3), min_size=2, max_size=6),
    bias=st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_as_many_passes_as_candidates_cancel_any_additive_bias(
    relevance: list[float], bias: list[float], seed: int
) -> None:
    m = len(relevance)

    def says(before: str) -> dict[str, float]:
        listed = before[before.find("There are") :].split("\n")[1 : m + 1]
        order = [TITLES.index(line.split(". ", 1)[1]) for line in listed]
        assert sorted(order) == list(range(m))
        return {TITLES[row]: float(np.exp(relevance[row] + bias[p])) for p, row in enumerate(order)}

    recommender, _ = planted_recommender(films(), says)
    answer = llm_rank(recommender, IDS[:1], IDS[:m], passes=m, by="score", seed=seed)
    score = np.array([next(one.score for one in answer.items if one.item_id == item) for item in IDS[:m]])
    np.testing.assert_allclose(score - score[0], np.array(relevance) - relevance[0], atol=1e-5)


def test_the_three_prompts_say_what_they_should() -> None:
    seen: list[str] = []

    def says(before: str) -> dict[str, float]:
        seen.append(before)
        return dict.fromkeys(TITLES[:3], 1.0)

    recommender, _ = planted_recommender(films(), says)
    for prompt in ("sequential", "recency", "in_context"):
        seen.clear()
        answer = llm_rank(recommender, IDS[5:7], IDS[:3], prompt=prompt)  # type: ignore[arg-type]
        assert sorted(answer.ids) == sorted(IDS[:3])
        assert (f"most recent item is {TITLES[6]}" in seen[0]) == (prompt == "recency")
        assert (f"to recommend was then {TITLES[6]}" in seen[0]) == (prompt == "in_context")
        assert (f"2. {TITLES[6]}" in seen[0]) == (prompt != "in_context")


def test_bad_wishes_are_refused() -> None:
    recommender, _ = planted_recommender(films(), lambda _: {})
    with pytest.raises(RequestError, match="passes >= 1"):
        llm_rank(recommender, [], IDS[:2], passes=0)
    with pytest.raises(RequestError, match="expected candidates that are in the catalog"):
        llm_rank(recommender, [], ["nobody"])
