"""Which column is which: the usual names of ids, titles, users and times, and mappings over them.

It knows names only. Names are compared without case, spaces, underscores and hyphens: ``movieId`` is
``movie_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from index.read_report import ReadError

# In order of preference: where a file has several, the first here is the one interactions refer to.
ITEM_ID_NAMES = (
    "item_id", "movie_id", "parent_asin", "asin", "product_id", "sku", "article_id", "news_id", "book_id",
    "track_id", "iid", "item", "id",
)  # fmt: skip
TITLE_NAMES = (
    "title", "name", "item_title", "movie_title", "product_title", "item_name", "product_name", "prod_name",
)  # fmt: skip
USER_NAMES = ("user_id", "user", "uid", "reviewer_id", "customer_id", "visitor_id", "session_id")
TIME_NAMES = ("timestamp", "unix_review_time", "time", "ts", "datetime", "date", "created_at", "event_time")


def find_column(
    names: Sequence[str], usual: Sequence[str], mapped: str | None, role: str, path: Path, error: ReadError
) -> str:
    """The column that plays ``role``: the mapped one, or the first with a usual name.

    Raises:
        CatalogError or HistoryError, as asked for: there is none.
    """
    found = find_optional_column(names, usual, mapped, role, path, error)
    if found is None:
        raise error(
            f"expected a column for the {role} in {path} (such as {', '.join(usual[:4])}), "
            f"got columns {', '.join(names)}; map one: {role.replace(' ', '_')}=COLUMN"
        )
    return found


def find_optional_column(
    names: Sequence[str], usual: Sequence[str], mapped: str | None, role: str, path: Path, error: ReadError
) -> str | None:
    """As ``find_column``, but None if nothing is mapped and no usual name is there."""
    if mapped is not None:
        if mapped not in names:
            there = ", ".join(names)
            raise error(f"expected a column '{mapped}' for the {role} in {path}, got columns {there}")
        return mapped
    by_key = {_key(name): name for name in reversed(names)}
    return next((by_key[_key(name)] for name in usual if _key(name) in by_key), None)


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


def same_name(one: str, other: str) -> bool:
    """Whether two column names differ in spelling only; a RecBole type after a colon does not count."""
    return _key(one.partition(":")[0]) == _key(other)
