"""Wishes: what one request asks for beside its history.

They say nothing of the index or the model that will answer. A Recommender resolves them: what is left open
takes the bundle's defaults, and wishes that make no sense are refused before anything is searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from genrec.prior import Prior
from genrec.search import Diversity, Normalize, Synchronize
from genrec.tasks import Mode, QueryConstraint, QueryDefaults, TaskDefaults
from index.errors import RequestError
from index.filter_expression import Where
from index.types import ItemId

PriorName: TypeAlias = Literal["history", "none"]
USUAL_WEIGHT = 0.5  # of a history prior asked for by name in a bundle whose model was better alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What one request asks for; every field is a keyword of :meth:`genrec.Recommender.recommend`."""

    k: int = 10
    """Items wanted. Fewer come back only where the catalog has fewer allowed ones."""
    beam: int | None = None
    """Prefixes kept per step; the bundle's default where not given, never below k."""
    normalize: Normalize | None = None
    """``"catalog"`` or ``"vocabulary"``; the bundle's default (measured) where not given."""
    synchronize: Synchronize = "leaf"
    """``"leaf"``, or ``"token"`` for parity with Hugging Face's beam search."""
    exclude_seen: bool = True
    """Leave out items of the history, inside the search."""
    where: Where | None = None
    """A filter over catalog fields, ``'year >= 1990 and "Comedy" in genres'`` or its structured form
    (:mod:`index.filter_expression`). It acts inside the search: exactly min(k, allowed) items come back."""
    include: Sequence[ItemId] | None = None
    """Only these items are allowed."""
    exclude: Sequence[ItemId] = ()
    """These items are not."""
    exact: bool = False
    """Go on until the k best are proven. ``beam`` prefixes are then taken up at a time."""
    max_expansions: int | None = None
    """Budget of an exact search or a sample, in prefixes."""
    max_per: Mapping[str, int] | None = None
    """At most so many items with one value of a field, ``{"brand": 2}``; the best ones by score. A list field
    counts each of its values."""
    prior: Prior | PriorName | float | None = None
    """What is known of the items beside the model. Not given: the bundle's history prior, with the weight that was
    best on validation, wherever the other wishes go with it (diversity, a token-synchronous search and queries do
    not). ``"none"``: the model alone. A number in [0, 1): the history prior with this weight; ``"history"``: with
    the bundle's. A :class:`~genrec.prior.Prior`, which :meth:`genrec.Recommender.prior` makes, replaces it."""
    sample: bool = False
    """Draw k items without replacement instead of ranking them, in the model's proportions (catalog scores).
    Items come in the order drawn."""
    seed: int = 0
    """Of the sample. The same seed and history draw the same items."""
    diversity: Diversity | None = None
    """Search in groups, each kept away from where the others went; nothing but a filter goes with it."""
    mode: Mode | None = None
    """What the model writes: ``"semantic_id"``, ``"title"`` or ``"query"``; the first mode of the bundle where not
    given."""
    queries: int | None = None
    """Of query mode: how many are written, each finding its share of the items; the bundle's default where not
    given."""
    constraint: QueryConstraint | None = None
    """Of query mode: ``"free"`` text, or ``"catalog_ngrams"``: only words that stand together in the catalog."""


def resolve(wishes: Wishes, defaults: TaskDefaults) -> Wishes:
    """The wishes with ``beam`` and ``normalize`` filled in, and what queries take where those are written.

    ``prior`` is then a Prior, the weight of the history prior above 0, or None.

    Raises:
        RequestError: k, beam, queries or max_expansions below 1, an unknown choice, or wishes that contradict each
            other.
    """
    beam = defaults.beam if wishes.beam is None else wishes.beam
    normalize = defaults.normalize if wishes.normalize is None else wishes.normalize
    if wishes.k < 1 or beam < 1:
        raise RequestError(f"expected k >= 1 and beam >= 1, got k={wishes.k}, beam={beam}")
    if wishes.max_expansions is not None and wishes.max_expansions < 1:
        raise RequestError(f"expected max_expansions >= 1, got {wishes.max_expansions}; None sets no limit")
    for value, known in ((normalize, get_args(Normalize)), (wishes.synchronize, get_args(Synchronize))):
        if value not in known:
            raise RequestError(f"expected one of {', '.join(known)}, got {value!r}")
    if isinstance(defaults, QueryDefaults):
        return _resolve_queries(replace(wishes, beam=beam, normalize=normalize), defaults)
    if wishes.queries is not None or wishes.constraint is not None:
        raise RequestError(
            f"expected queries and constraint with mode='query' alone, got queries={wishes.queries}, "
            f"constraint={wishes.constraint!r}; leave them out or name the mode"
        )
    prior = _prior_of(wishes, defaults)
    resolved = replace(wishes, beam=max(beam, wishes.k), normalize=normalize, prior=prior)
    _check_agreement(resolved)
    return resolved


def _prior_of(wishes: Wishes, defaults: TaskDefaults) -> Prior | float | None:
    """The prior that was asked for, by weight where it is the history prior; None for none."""
    asked = wishes.prior
    if asked is None:
        goes = wishes.diversity is None and wishes.synchronize == "leaf"
        return defaults.prior_weight or None if goes else None
    if isinstance(asked, Prior):
        return asked
    if isinstance(asked, str):
        if asked not in get_args(PriorName):
            raise RequestError(
                f"expected a prior of {', '.join(get_args(PriorName))}, or a weight in [0, 1), got {asked!r}"
            )
        return None if asked == "none" else defaults.prior_weight or USUAL_WEIGHT
    if not 0 <= asked < 1:
        raise RequestError(f"expected a weight of the history prior in [0, 1), got {asked}; 0 is none")
    return float(asked) or None


def _resolve_queries(wishes: Wishes, defaults: QueryDefaults) -> Wishes:
    assert wishes.beam is not None
    queries = defaults.queries if wishes.queries is None else wishes.queries
    constraint = defaults.constraint if wishes.constraint is None else wishes.constraint
    if queries < 1:
        raise RequestError(f"expected queries >= 1, got {queries}")
    if constraint not in get_args(QueryConstraint):
        raise RequestError(f"expected one of {', '.join(get_args(QueryConstraint))}, got {constraint!r}")
    items_only = {
        "exact search": wishes.exact,
        "a budget of expansions": wishes.max_expansions is not None,
        "priors": wishes.prior not in (None, "none"),
        "caps": bool(wishes.max_per),
        "token-synchronous search": wishes.synchronize == "token",
        "catalog scores": wishes.normalize == "catalog",
    }
    for name, is_asked in items_only.items():
        if is_asked:
            raise RequestError(
                f"expected {name} with a mode that searches the items themselves (semantic_id, title), got "
                "mode='query', which searches by words; leave it out"
            )
    if wishes.sample and wishes.diversity is not None:
        raise RequestError("expected diversity or sampling, got both; leave one out")
    return replace(wishes, beam=max(wishes.beam, queries), queries=queries, constraint=constraint)


def scores_are_shares(resolved: Wishes) -> bool:
    """Whether exp(score) is a share of the whole catalog's probability."""
    prior = resolved.prior
    return resolved.normalize == "catalog" and not (isinstance(prior, Prior) and prior.kind == "additive")


def _check_agreement(resolved: Wishes) -> None:
    leaf_only = {
        "exact search": resolved.exact,
        "priors": resolved.prior is not None,
        "caps": bool(resolved.max_per),
        "sampling": resolved.sample,
        "diverse search": resolved.diversity is not None,
    }
    for name, is_asked in leaf_only.items():
        if is_asked and resolved.synchronize == "token":
            raise RequestError(
                f"expected {name} to be leaf-synchronous, got synchronize='token'; leave it out"
            )
    for name, is_asked in leaf_only.items():
        if is_asked and resolved.diversity is not None and name != "diverse search":
            raise RequestError(f"expected diversity or {name}, got both; leave one out")
    prior = resolved.prior if isinstance(resolved.prior, Prior) else None
    is_mixture = prior is not None and prior.kind == "mixture"
    if resolved.normalize != "catalog" and (resolved.sample or is_mixture):
        raise RequestError(
            f"expected catalog scores for a {'sample' if resolved.sample else 'mixture prior'}, "
            f"got normalize={resolved.normalize!r}: only they are a distribution over the items"
        )
    if resolved.sample and prior is not None and not is_mixture:
        raise RequestError(
            "expected a mixture prior for a sample, got an additive one; its scores are no distribution"
        )
