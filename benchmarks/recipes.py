"""Do the recipes do on a trained bundle and real data what their checks ask? (T1)

Held-out test events of a leave-one-out split; the bundle must have been trained with the modes ``title`` and
``query``. Every check is a figure against a threshold of ``recipe_thresholds.toml``, over seeds (each draws other
users), with a paired bootstrap where two systems are compared. What a bundle of compact prompts cannot show (it
reads no candidates) is said, not measured; a language model in prose shows it (``--only llmrank llmtreerec``).
360Brew, and what TALLRec and PALR gain by tuning, is :mod:`benchmarks.recipe_tuning`'s. Run::

    python -m benchmarks.recipes BUNDLE --interactions FILE [--users 50] [--seeds 3] [--only nir palr] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.recipe_ground import (
    THRESHOLDS,
    Case,
    Ground,
    Measured,
    gain,
    ground_of,
    hit,
    low_end,
    ndcg,
    show,
)
from genrec.bench.bootstrap import draws
from genrec.recipes import (
    CategoryTree,
    Chat,
    gen_rec,
    gpt4_rec,
    llm_rank,
    llm_tree_rec,
    narrative,
    nir,
    palr,
    tall_rec,
    user_filtering,
    zero_shot_crs,
)
from genrec.recipes.catalog_talk import CatalogTalk
from index.types import ItemId

NEEDS_PROSE = {
    "llmrank": "a compact prompt holds no candidates, so there is no bias for places to average out",
}
SLOTS = (0, 5, 10, 15, 19)
"""Places of the truth among twenty candidates."""


def check_gpt4rec(ground: Ground) -> list[Measured]:
    many = [gpt4_rec(ground.recommender, case.history, k=40, queries=10) for case in ground.cases]
    one = [gpt4_rec(ground.recommender, case.history, k=40, queries=1) for case in ground.cases]
    recalls = [
        [hit(answer, case.target, 40) for answer, case in zip(some, ground.cases, strict=True)]
        for some in (many, one)
    ]
    shown = [len({item for answer in some for item in answer.ids}) for some in (many, one)]
    events = np.bincount(ground.train.items, minlength=len(ground.recommender.index.catalog))
    cold = [
        events[ground.recommender.index.catalog.row_of(item)] == 0 for answer in many for item in answer.ids
    ]
    own = THRESHOLDS["gpt4rec"]
    return [
        Measured(
            "gpt4rec",
            "Recall@40, 10 queries less 1: low end",
            low_end(*recalls),
            own["recall_gain"],
            ">",
            gain(*recalls),
        ),
        Measured(
            "gpt4rec",
            "items shown, 10 queries less 1",
            shown[0] - shown[1],
            own["coverage_gain"],
            ">",
            f"{shown}",
        ),
        Measured(
            "gpt4rec", "share of items never seen in training", float(np.mean(cold)), own["cold_share"], ">="
        ),
    ]


def check_genrec(ground: Ground) -> list[Measured]:
    free = [gen_rec(ground.recommender, case.history, constrained=False) for case in ground.cases]
    held = [gen_rec(ground.recommender, case.history) for case in ground.cases]
    wrong = [
        len(one.said_at("not in the catalog"))
        / max(1, len(one.items) + len(one.said_at("not in the catalog")))
        for one in free
    ]
    known = set(ground.recommender.index.catalog.item_ids)
    invalid = float(np.mean([item not in known for one in held for item in one.ids]))
    hits = [
        [hit(answer, case.target, 10) for answer, case in zip(some, ground.cases, strict=True)]
        for some in (held, free)
    ]
    own = THRESHOLDS["genrec"]
    return [
        Measured(
            "genrec", "freely written titles of no item", float(np.mean(wrong)), own["invalid_free"], ">"
        ),
        Measured("genrec", "constrained titles of no item", invalid, own["invalid_constrained"], "=="),
        Measured(
            "genrec",
            "HR@10 constrained less free: low end",
            low_end(*hits),
            own["hit_gain"],
            ">=",
            gain(*hits),
        ),
    ]


def filtered(ground: Ground, case: Case, count: int = 19) -> list[ItemId]:
    items = len(ground.recommender.index.catalog)
    return ground.ids(user_filtering(ground.train, case.rows, items=items, count=count))


def check_nir(ground: Ground) -> list[Measured]:
    hits = []
    for case in ground.cases:
        candidates = filtered(ground, case)
        if len(candidates) == 19 and case.target not in candidates:
            candidates[-1] = case.target  # the check is about the ranking: the truth is always among them
        if case.target in candidates:
            order = [candidates[place] for place in ground.rng.permutation(len(candidates))]
            hits.append(hit(nir(ground.recommender, case.history, order), case.target, 10))
    lower = float(np.mean(hits) - 2 * np.std(hits) / np.sqrt(len(hits))) if hits else 0.0
    note = f"{np.mean(hits):.4f} of {len(hits)} cases; the truth put among the candidates where it was not"
    return [
        Measured(
            "nir",
            "HR@10 with the truth among 19, less two sigma",
            lower,
            THRESHOLDS["nir"]["hit_share"],
            ">",
            note,
        )
    ]


def check_llmrank(ground: Ground) -> list[Measured]:
    """By the log-probability of titles: lists of twenty, token by token, take minutes a user on a CPU."""
    ids, found = ground.recommender.index.catalog.item_ids, np.zeros((2, len(SLOTS), len(ground.cases)))
    for number, case in enumerate(ground.cases):
        drawn = [one for one in ground.rng.choice(ids, 40, replace=False).tolist() if one != case.target][:19]
        order = np.random.default_rng(number).permutation(20)  # as llm_rank with this seed begins
        for place, slot in enumerate(SLOTS):
            candidates = [""] * 20
            for position, one in zip(np.delete(order, slot), drawn, strict=True):
                candidates[position] = one
            candidates[order[slot]] = case.target  # stands at this slot in the first pass
            for row, passes in enumerate((1, 5)):
                answer = llm_rank(
                    ground.recommender, case.history, candidates, passes=passes, by="score", seed=number
                )
                found[row, place, number] = ndcg(answer.ids, case.target)
    variance = found.mean(2).var(1)
    one, five = found.mean(1)
    difference = five - one
    high = float(np.quantile(difference[draws(len(difference), 0)].mean(1), 0.975))
    own = THRESHOLDS["llmrank"]
    note = "by slot " + " / ".join(" ".join(f"{mean:.3f}" for mean in some) for some in found.mean(2))
    return [
        Measured("llmrank", "variance of NDCG@10 over places, 5 passes over 1", float(variance[1] / variance[0]),
                 own["variance_share"], "<=", note),
        Measured("llmrank", "NDCG@10, 5 passes less 1: upper end", high, own["ndcg_gain"], ">=", gain(five, one)),
    ]  # fmt: skip


def check_palr(ground: Ground) -> list[Measured]:
    after, before = [], []
    for case in ground.cases:
        candidates = filtered(ground, case, 40)
        if candidates:
            after.append(ndcg(palr(ground.recommender, case.history, candidates=candidates).ids, case.target))
            before.append(ndcg(candidates, case.target))
    note = gain(after, before)
    return [
        Measured(
            "palr",
            "NDCG@10 less user filtering's: low end",
            low_end(after, before),
            THRESHOLDS["palr"]["ndcg_gain"],
            ">=",
            note,
        )
    ]


def check_tallrec(ground: Ground) -> list[Measured]:
    catalog = ground.recommender.index.catalog.item_ids
    wins = []
    for case in ground.cases:
        other = catalog[int(ground.rng.integers(len(catalog)))]
        answer = tall_rec(ground.recommender, case.history, [other, case.target])
        wins.append(float(answer.ids[0] == case.target))
    note = "paired: the next item against one drawn; compact form, no tuning"
    return [Measured("tallrec", "AUC", float(np.mean(wins)), THRESHOLDS["tallrec"]["auc"], ">=", note)]


def check_llmtreerec(ground: Ground) -> list[Measured]:
    field = next(
        name for name in ("attributes", "genres") if name in ground.recommender.index.catalog.field_names
    )
    tree = CategoryTree.of(ground.recommender, [field, field])
    order = ground.rng.permutation(len(ground.recommender.index.catalog))
    shuffled = CategoryTree(
        {
            one: {name: tuple(order[list(rows)].tolist()) for name, rows in below.items()}
            for one, below in tree.leaves.items()
        }
    )
    hits = [
        [
            hit(llm_tree_rec(ground.recommender, case.history, tree=one), case.target, 20)
            for case in ground.cases
        ]
        for one in (tree, shuffled)
    ]
    ratio = float(np.mean(hits[0]) / max(np.mean(hits[1]), 1 / len(ground.cases)))
    own = THRESHOLDS["llmtreerec"]["recall_times"]
    return [Measured("llmtreerec", "Recall@20 over that of a shuffled tree", ratio, own, ">=", gain(*hits))]


def check_gnr(ground: Ground) -> list[Measured]:
    known, broken = set(ground.recommender.index.catalog.item_ids), 0
    for case in ground.cases:
        answer = narrative(ground.recommender, case.history)
        cited = re.findall(r"\]\(([^)]*)\)", answer.text)
        broken += cited != answer.ids or len(set(cited)) != 4 or not set(cited) <= known - set(case.history)
    return [
        Measured("gnr", "narratives with a mention that is wrong", broken, THRESHOLDS["gnr"]["broken"], "==")
    ]


def check_chatrec(ground: Ground) -> list[Measured]:
    catalog, broken = ground.recommender.index.catalog, 0
    field = next(name for name in ("attributes", "genres") if name in catalog.field_names)
    for case in ground.cases:
        chat = Chat(ground.recommender, case.history, k=5)
        first = chat.turn("Something good, please.")
        values = catalog[int(catalog.rows_of(first.ids[:1])[0])].fields[field]
        value = values[-1] if isinstance(values, list) and values else "horror"
        named, bad = [*case.history, *first.ids], False
        for text in (f"No {value}.", "More!", "Why the first?", "And others?"):
            answer = chat.turn(text)
            held = {one.value for one in chat.state.wishes}
            rows = catalog.rows_of(answer.ids).tolist()
            bad |= any(held & set(catalog[row].fields[field] or ()) for row in rows)  # type: ignore[call-overload]
            bad |= bool(set(answer.ids) & set(named)) or (text.startswith("Why") and not answer.evidence)
            named += answer.ids
        broken += bad
    return [
        Measured("chatrec", "dialogs in which a rule broke", broken, THRESHOLDS["chatrec"]["broken"], "==")
    ]


def check_zero_shot_crs(ground: Ground) -> list[Measured]:
    catalog, broken = ground.recommender.index.catalog, 0
    known = set(catalog.item_ids)
    for case in ground.cases:
        titles = [catalog[int(row)].title for row in case.rows[-2:]]
        ids = zero_shot_crs(ground.recommender, [f"User: I liked {title} " for title in titles]).ids
        broken += len(set(ids)) != 20 or not set(ids) <= known
    return [
        Measured(
            "zero-shot-crs",
            "lists with an unknown item, or not of twenty",
            broken,
            THRESHOLDS["zero-shot-crs"]["broken"],
            "==",
        )
    ]


CHECKS: dict[str, Callable[[Ground], list[Measured]]] = {
    "gpt4rec": check_gpt4rec,
    "genrec": check_genrec,
    "llmrank": check_llmrank,
    "nir": check_nir,
    "palr": check_palr,
    "tallrec": check_tallrec,
    "llmtreerec": check_llmtreerec,
    "gnr": check_gnr,
    "chatrec": check_chatrec,
    "zero-shot-crs": check_zero_shot_crs,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    ground = ground_of(asked.bundle, asked.interactions, asked.users, asked.seeds)
    is_prose = CatalogTalk(ground.recommender).is_prose
    found: list[Measured] = []
    for name in asked.only:
        if name in NEEDS_PROSE and not is_prose:
            print(f"{name:<14} not measured: {NEEDS_PROSE[name]}")
            continue
        began = time.process_time()
        own = CHECKS[name](ground)
        show(own, time.process_time() - began)
        found += own
    if asked.json:
        print(json.dumps([{**asdict(one), "passed": one.passed} for one in found]))


if __name__ == "__main__":
    main()
