"""From the engine's answer to the response a client reads: fields and reasons come from the same version."""

from __future__ import annotations

import secrets
import time

import numpy as np

from genrec.plan import plan_of
from genrec.prior_reasons import PriorReason, prior_reasons
from genrec.recommender import Recommendation
from genrec.recommender import RecommendedItem as Recommended
from genrec.wishes import Wishes
from index.catalog import Catalog
from index.errors import FilterError
from index.item_index import ItemIndex
from index.types import Int32Array
from serving import response_schemas as schemas
from serving.errors import ApiError
from serving.live_bundle import LiveBundle
from serving.request_schemas import RecommendationRequest
from serving.waiting import Answer

MOST_SIMILAR = 3  # reasons an item is given
_ALWAYS = ("item_id", "title")  # stand in every answer; whoever asks for them is not wrong


def check_fields(names: list[str], catalog: Catalog) -> None:
    """Refuse ``return_fields`` the catalog does not have.

    Raises:
        ApiError: ``unknown_return_field``.
    """
    known = (*_ALWAYS, *catalog.field_names)
    for name in names:
        if name not in known:
            raise ApiError(
                "unknown_return_field",
                f"expected fields of the catalog ({', '.join(known)}), got {name!r}",
                "return_fields",
            )


def response_of(
    answer: Answer,
    request: RecommendationRequest,
    history: list[str],
    total_ms: float,
    fallback: schemas.Degraded | None = None,
) -> schemas.RecommendationResponse:
    """The response to one request.

    Args:
        answer: to it.
        request: as it came.
        history: its ids.
        total_ms: since it came.
        fallback: the error that the answer stands for, where it is not the model's.

    Raises:
        ApiError: a reload has taken a field away that was asked for.
    """
    found = answer.recommendation
    index = answer.live.recommender.index
    catalog = index.catalog
    check_fields(request.return_fields, catalog)
    rows = catalog.rows_of(history)
    known = rows[rows >= 0]
    reasons = None
    if request.explain and fallback is None:  # a budget of expansions changes nothing of them
        reasons = prior_reasons(answer.live.recommender, history, request.wishes(1), found)
    is_proving = (request.decoding.exact or request.decoding.sample) and not found.queries
    is_short = is_proving and found.certified < len(found.items)
    return schemas.RecommendationResponse(
        id=f"rec_{secrets.token_hex(12)}",
        object="recommendation.list",
        created=int(time.time()),
        model=answer.live.model,
        catalog=answer.live.catalog,
        mode=found.mode,
        items=[
            _item(
                one,
                request,
                index,
                known,
                found,
                fallback is not None,
                None if reasons is None else reasons[place],
            )
            for place, one in enumerate(found.items)
        ],
        certified=found.certified,
        normalize=found.normalize,
        queries=[
            schemas.UsedQuery.model_construct(
                text=query.text,
                score=query.score,
                found=query.found,
                matched_terms=list(query.matched_terms),
            )
            for query in found.queries
        ],
        missing_ids=list(found.unknown_ids),
        notes=list(found.notes),
        degraded=fallback or ("budget_exhausted" if is_short else None),
        plan=None,
        usage=schemas.Usage(
            history_items=len(known),
            expansions=found.expansions,
            model_calls=found.model_calls,
            beam=found.beam,
            batch=answer.batch,
        ),
        timings_ms=schemas.Timings(
            queue=round(answer.queue_ms, 3), search=round(answer.search_ms, 3), total=round(total_ms, 3)
        ),
    )


def plan_response(
    live: LiveBundle, request: RecommendationRequest, history: list[str], wishes: Wishes, start: float
) -> schemas.RecommendationResponse:
    """What a request would be answered by, in an answer without items; ``start`` is when it came.

    Raises:
        ApiError, RequestError, FilterError: why it would be refused.
    """
    recommender = live.recommender
    try:
        plan = plan_of(recommender, history, wishes)
    except RecursionError:
        raise FilterError("expected a filter nested at most 32 deep, got a deeper one") from None
    unknown = dict.fromkeys(one for one in history if recommender.index.catalog.row_of(one) is None)
    nothing = Recommendation(
        items=(),
        certified=0,
        unknown_ids=tuple(unknown),
        notes=("validate_only: nothing was searched",),
        normalize=plan.normalize,
        beam=plan.beam,
        expansions=0,
        model_calls=0,
        mode=plan.mode,
    )
    checked_ms = 1000 * (time.perf_counter() - start)
    response = response_of(Answer(nothing, live, 0.0, 0.0, 1), request, history, checked_ms)
    response.plan = schemas.Plan(
        mode=plan.mode,
        normalize=plan.normalize,
        beam=plan.beam,
        max_expansions=plan.max_expansions,
        queries=plan.queries,
        constraint=plan.constraint,
        allowed_items=plan.allowed_items,
    )
    return response


def _item(
    one: Recommended,
    request: RecommendationRequest,
    index: ItemIndex,
    known: Int32Array,
    found: Recommendation,
    is_fallback: bool,
    reason: PriorReason | None,
) -> schemas.RecommendedItem:
    row = index.catalog.row_of(one.item_id)
    assert row is not None  # the search returns items of this catalog
    fields = index.catalog[row].fields if request.return_fields else {}
    return schemas.RecommendedItem.model_construct(
        item_id=one.item_id,
        rank=one.rank,
        title=one.title,
        score=one.score,
        probability=one.probability,
        source="fallback" if is_fallback else "retrieved" if found.mode == "query" else "generated",
        generated=one.generated,
        matched_terms=[
            schemas.MatchedTerm.model_construct(term=term.term, score=term.score)
            for term in one.matched_terms
        ],
        fields={name: fields[name] for name in request.return_fields if name not in _ALWAYS},
        explanation=_explanation(one, row, index, known, found.certified, reason)
        if request.explain
        else None,
    )


def _explanation(
    one: Recommended,
    row: int,
    index: ItemIndex,
    known: Int32Array,
    certified: int,
    reason: PriorReason | None,
) -> schemas.Explanation:
    codes = index.codes
    history = np.array(list(dict.fromkeys(known[::-1].tolist())), np.int64)  # newest first, each once
    shared = np.cumprod(codes[history] == codes[row], axis=1).sum(axis=1)
    nearest = np.argsort(-shared, kind="stable")[:MOST_SIMILAR]
    return schemas.Explanation(
        proven=one.rank <= certified,
        semantic_id=codes[row].tolist(),
        similar_in_history=[
            schemas.SimilarItem(
                item_id=index.catalog.item_ids[int(history[place])], shared_levels=int(shared[place])
            )
            for place in nearest.tolist()
            if shared[place] > 0
        ],
        prior_part=None if reason is None else reason.part,
        because_of=None if reason is None else reason.because_of,
    )
