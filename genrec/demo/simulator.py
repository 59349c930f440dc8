"""Simulated user histories over the demo catalog. No real person is behind any of them.

The model, for works i, j and a user u, with every number below a module constant:

- *Popularity.* Works get a random order; the one at rank r = 0, 1, … has ``pop(i) = (r + r0)^-s``, a long
  tail. The order comes from the seed and says nothing about how popular a work really is.
- *Taste.* ``θ_u ~ Dirichlet(a_g · G · f)`` over G genres, f their shares of the catalog; ``κ_u`` over kinds
  and ``δ_u`` over decades likewise. With ``g_i`` the genres of i as shares that sum to 1::

      taste(u, i) = pop(i) · (e_g + θ_u·g_i)^2 · (e_k + κ_u[kind i]) · (e_d + δ_u[decade i])

  Each user has ``FAVOURITES`` favourite creators with two or more works, drawn without replacement in
  proportion to the mean taste for their works; ``taste`` is multiplied by ``FAVOURITE_BOOST`` on those works.
- *Next work*, given the last work i, among the works not yet seen:

  - with probability ``NOISE`` anything, ``P(j) ∝ pop(j)``;
  - else with probability ``CONTINUE``, where i has a continuation left, ``P(j) ∝ cont(i, j) · taste(u, j)``.
    ``cont(i, j)`` is ``SAME_STORY`` if i and j tell one story (equal titles but for a number or subtitle:
    Dune and Dune: Part Two, the novel and the film), plus ``2^(1-d)`` if j is the d-th work after i of a
    creator they share, in order of years: so direction matters, one follows a creator forwards;
  - else an affine work, ``P(j) ∝ taste(u, j) · exp(b_g cos(g_i, g_j) + b_c [a creator shared] + b_k [same kind])``.

- *First work*: ``P(j) ∝ taste(u, j)``. *Length*: ``6 + Binomial(24, q_u)``, ``q_u ~ Beta(1.5, 2)``.
- *Time*: from a fixed date, whole seconds, exponential gaps, strictly increasing per user.

So the last work matters, the older ones tell the taste, and popularity alone explains little. It knows
nothing of training or evaluation, and it draws on nothing but its arguments: no clock, no files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from index.errors import CatalogError, HistoryError
from index.types import BoolArray, Float64Array, Int64Array, IntArray

MIN_EVENTS = 6
MAX_EVENTS = 30
BASE_TIME = 1_577_836_800  # 2020-01-01T00:00:00Z
START_SPREAD = 365 * 86_400  # users begin somewhere in the first year, seconds
MEAN_GAP = 3 * 86_400  # between two events of a user, seconds

POPULARITY_OFFSET = 10.0  # r0: without it the first few works would be in every history
POPULARITY_SLOPE = 0.8  # s
GENRE_CONCENTRATION = 0.12  # a_g: small, so a user cares for a handful of genres
KIND_CONCENTRATION = 0.5
DECADE_CONCENTRATION = 0.5
GENRE_FLOOR = 0.01  # e_g: a work outside the taste stays possible
KIND_FLOOR = 0.03
DECADE_FLOOR = 0.1
FAVOURITES = 2
FAVOURITE_BOOST = 4.0
NOISE = 0.06
CONTINUE = 0.4
SAME_STORY = 3.0
GENRE_PULL = 2.5  # b_g
CREATOR_PULL = 1.5  # b_c
KIND_PULL = 0.5  # b_k

_COLUMNS = ("item_id", "title", "year", "kind", "creators", "genres")
_STORY = re.compile(r"^(?P<stem>[^:]+?)(?:\s+(?:Part\s+\w+|[IVX]+|\d+))?(?::.*)?$")


def simulate_histories(works: pl.DataFrame, users: int = 2000, seed: int = 7) -> pl.DataFrame:
    """Simulated histories: the same bytes for the same arguments and numpy version.

    Args:
        works: columns item_id, title, year, kind, creators (list), genres (list), as
            :func:`genrec.demo.read_works` gives them; at least ``MAX_EVENTS`` rows.
        users: number of simulated users.
        seed: of the one generator everything is drawn from.

    Returns:
        Columns user_id (``simulated-0001``, …), item_id, timestamp (int64, Unix seconds), one row an event,
        by user and then by time. A user has ``MIN_EVENTS`` to ``MAX_EVENTS`` events and no work twice.

    Raises:
        CatalogError: a column is missing, an id repeats, a work has no genre or creator, or there are too
            few works.
        HistoryError: ``users`` is not positive.
    """
    _check(works, users)
    rng = np.random.default_rng(seed)
    catalog = _compile(works)
    popularity = _popularity(rng, works.height)
    taste = _tastes(rng, catalog, popularity, users)
    lengths = MIN_EVENTS + rng.binomial(MAX_EVENTS - MIN_EVENTS, rng.beta(1.5, 2.0, users))  # [U]
    walks = _walk(rng, catalog, popularity, taste, lengths)  # [U, MAX_EVENTS]
    times = _times(rng, users)  # [U, MAX_EVENTS]

    happened = np.arange(MAX_EVENTS) < lengths[:, None]  # row-major: by user, then by time
    user = np.repeat(np.arange(1, users + 1), lengths)
    return pl.DataFrame(
        {
            "user_id": [f"simulated-{number:04d}" for number in user.tolist()],
            "item_id": works["item_id"].gather(walks[happened]),
            "timestamp": times[happened],
        },
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
    )


@dataclass(frozen=True, slots=True)
class _Catalog:
    """What the simulation needs to know of N works."""

    genre: Float64Array  # [N, G], rows sum to 1
    kind: Int64Array  # [N], codes
    decade: Int64Array  # [N], codes
    made: Float64Array  # [C, N], 1 where a creator with two or more works made the work
    affinity: Float64Array  # [N, N], from the last work (row) to the next
    continuation: Float64Array  # [N, N], zero where there is none


def _check(works: pl.DataFrame, users: int) -> None:
    missing = [name for name in _COLUMNS if name not in works.columns]
    if missing:
        raise CatalogError(
            f"expected the columns {', '.join(_COLUMNS)}, got none named {missing[0]!r}; add it"
        )
    if works.height < MAX_EVENTS:
        raise CatalogError(
            f"expected at least {MAX_EVENTS} works, got {works.height}; a user sees no work twice, so add works"
        )
    if works["item_id"].n_unique() < works.height:
        raise CatalogError("expected each item_id once, got repeats; drop the duplicate works")
    for name in ("creators", "genres"):
        bare = works.filter(pl.col(name).list.len().fill_null(0) == 0)
        if bare.height:
            raise CatalogError(
                f"expected at least one of {name} for each work, got none for {bare['item_id'][0]!r}; add one"
            )
    if users < 1:
        raise HistoryError(f"expected users >= 1, got {users}; ask for at least one simulated user")


def _compile(works: pl.DataFrame) -> _Catalog:
    count = works.height
    years: Int64Array = works["year"].to_numpy().astype(np.int64)
    genres: list[list[str]] = works["genres"].to_list()
    creators: list[list[str]] = works["creators"].to_list()
    titles: list[str] = works["title"].to_list()

    genre = _membership(genres)  # [G, N]
    cosine_rows = genre.T / np.linalg.norm(genre, axis=0)[:, None]
    made = _membership(creators)  # [C, N]
    kind = _codes(works["kind"].to_list())

    exponent = GENRE_PULL * (cosine_rows @ cosine_rows.T)
    exponent += CREATOR_PULL * (made.T @ made > 0)
    exponent += KIND_PULL * (kind[:, None] == kind[None, :])

    continuation = np.zeros((count, count))
    for rows in _groups([[_story(title)] for title in titles]):
        continuation[np.ix_(rows, rows)] += SAME_STORY
    for rows in _groups(creators):
        chain = rows[np.lexsort((rows, years[rows]))]
        steps = np.arange(chain.size)[None, :] - np.arange(chain.size)[:, None]
        continuation[np.ix_(chain, chain)] += np.where(steps > 0, 2.0 ** (1.0 - steps), 0.0)
    np.fill_diagonal(continuation, 0.0)

    return _Catalog(
        genre=(genre / genre.sum(axis=0)).T,
        kind=kind,
        decade=_codes((years // 10).tolist()),
        made=made[made.sum(axis=1) > 1],
        affinity=np.exp(exponent),
        continuation=continuation,
    )


def _story(title: str) -> str:
    """The title without its subtitle and number, in lower case: works that agree in it tell one story.

    A few only share the name (the film Persona, the game Persona 5); simulated users do not mind.
    """
    match = _STORY.match(title)
    return (match["stem"] if match else title).casefold()


def _codes(values: Sequence[str] | Sequence[int]) -> Int64Array:
    """Codes 0, 1, … of the sorted distinct values."""
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)


def _membership(names: list[list[str]]) -> Float64Array:
    """[distinct names in sorted order, N], 1 where the work has the name."""
    distinct = sorted({name for row in names for name in row})
    place = {name: position for position, name in enumerate(distinct)}
    matrix = np.zeros((len(distinct), len(names)))
    for work, row in enumerate(names):
        matrix[[place[name] for name in row], work] = 1.0
    return matrix


def _groups(names: list[list[str]]) -> list[IntArray]:
    """For each name of two or more works, their rows."""
    return [np.flatnonzero(row) for row in _membership(names) if row.sum() > 1]


def _popularity(rng: np.random.Generator, count: int) -> Float64Array:
    """[N], summing to 1."""
    weight = (rng.permutation(count) + POPULARITY_OFFSET) ** -POPULARITY_SLOPE
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def _tastes(
    rng: np.random.Generator, catalog: _Catalog, popularity: Float64Array, users: int
) -> Float64Array:
    """[U, N]: how much each user is drawn to each work, whatever came last."""
    share = catalog.genre.mean(axis=0)
    theta = rng.dirichlet(GENRE_CONCENTRATION * share.size * share, users)  # [U, G]
    kappa = _shares(rng, catalog.kind, KIND_CONCENTRATION, users)  # [U, kinds]
    delta = _shares(rng, catalog.decade, DECADE_CONCENTRATION, users)  # [U, decades]
    taste: Float64Array = popularity * (GENRE_FLOOR + theta @ catalog.genre.T) ** 2
    taste *= KIND_FLOOR + kappa[:, catalog.kind]
    taste *= DECADE_FLOOR + delta[:, catalog.decade]

    if catalog.made.shape[0] == 0:
        return taste
    appeal = taste @ (catalog.made / catalog.made.sum(axis=1, keepdims=True)).T  # [U, C]
    # The largest log-weights plus Gumbel noise are a weighted draw without replacement.
    order = np.argsort(-(np.log(appeal) + rng.gumbel(size=appeal.shape)), axis=1, kind="stable")
    liked = catalog.made[order[:, :FAVOURITES]].max(axis=1)  # [U, N]
    return np.asarray(taste * np.where(liked > 0, FAVOURITE_BOOST, 1.0))


def _shares(rng: np.random.Generator, codes: Int64Array, concentration: float, users: int) -> Float64Array:
    """[U, codes]: Dirichlet draws around the shares the codes have in the catalog."""
    counts = np.bincount(codes)
    return rng.dirichlet(concentration * counts.size * counts / codes.size, users)


def _walk(
    rng: np.random.Generator,
    catalog: _Catalog,
    popularity: Float64Array,
    taste: Float64Array,
    lengths: Int64Array,
) -> Int64Array:
    """[U, MAX_EVENTS] rows of the catalog, no row twice for a user; -1 after a user's last event."""
    unseen: BoolArray = np.ones(taste.shape, dtype=np.bool_)  # [U, N]
    walks = np.full((lengths.size, MAX_EVENTS), -1, dtype=np.int64)
    for event in range(MAX_EVENTS):
        users = np.flatnonzero(lengths > event)
        weight = taste[users] * unseen[users]
        if event > 0:
            last = walks[users, event - 1]
            mode = rng.random(users.size)
            would = np.flatnonzero(mode < NOISE + (1.0 - NOISE) * CONTINUE)
            onward = weight[would] * catalog.continuation[last[would]]
            left = onward.sum(axis=1) > 0.0
            weight *= catalog.affinity[last]
            weight[would[left]] = onward[left]
            strays = mode < NOISE
            weight[strays] = popularity * unseen[users[strays]]
        walks[users, event] = _draw(rng, weight)
        unseen[users, walks[users, event]] = False
    return walks


def _draw(rng: np.random.Generator, weight: Float64Array) -> Int64Array:
    """One column for each row of ``weight`` [U, N], in proportion to the weights; zeros are never drawn."""
    cumulative = np.cumsum(weight, axis=1)
    total = cumulative[:, -1]
    # Rounding must not push the point onto the total, which no column lies above.
    point = np.minimum(rng.random(total.size) * total, np.nextafter(total, 0.0))
    return np.asarray(np.argmax(cumulative > point[:, None], axis=1), dtype=np.int64)


def _times(rng: np.random.Generator, users: int) -> Int64Array:
    """[U, MAX_EVENTS] Unix seconds, strictly increasing along a row."""
    start = BASE_TIME + rng.integers(0, START_SPREAD, (users, 1))
    gaps = 1 + rng.exponential(MEAN_GAP, (users, MAX_EVENTS)).astype(np.int64)
    return np.asarray(start + np.cumsum(gaps, axis=1), dtype=np.int64)
