"""What an engine indexes: texts of a catalog, and the terms of each item, fields repeated by their weight.

All engines take their documents from here, so they count the same occurrences. It knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from index.bm25.analyzer import analyze
from index.catalog import Catalog
from index.errors import CatalogError, RequestError
from index.types import IntArray

Texts: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
"""N texts, any of them empty; or N texts for each field, where fields are weighted."""


def catalog_texts(
    catalog: Catalog, weights: Mapping[str, int] | None, removed: IntArray | None = None
) -> Texts:
    """The texts of a catalog: one an item, or by the fields of ``weights`` (``title`` is one).

    Args:
        catalog: N items.
        weights: see ``Bm25Settings``.
        removed: rows that get texts without words, which are never found.

    Raises:
        CatalogError: a field the catalog does not have.
    """
    gone = [] if removed is None else removed.tolist()
    if weights is None:
        return _blanked(catalog.texts(), gone)
    unknown = [name for name in weights if name not in ("title", *catalog.field_names)]
    if unknown:
        raise CatalogError(
            f"expected weights for fields among {['title', *catalog.field_names]}, got {unknown}; "
            "correct or leave them out"
        )
    return {name: _blanked([_text(value) for value in catalog.frame[name]], gone) for name in weights}


def _text(value: object) -> str:
    if value is None:
        return ""
    return (
        " ".join(map(_text, value))
        if isinstance(value, Iterable) and not isinstance(value, str)
        else str(value)
    )


def _blanked(texts: list[str], rows: list[int]) -> list[str]:
    for row in rows:
        texts[row] = ""
    return texts


def item_terms(texts: Texts, weights: Mapping[str, int] | None) -> list[list[str]]:
    """Terms of each of the N items, in field order, repeats kept.

    Each field is analysed by itself: a title of stop words only keeps them, whatever the description says.

    Raises:
        RequestError: fields and weights do not name the same fields, or fields differ in length.
    """
    if not isinstance(texts, Mapping):
        if weights is not None:
            raise RequestError(f"expected texts by field for the weights of {sorted(weights)}, got one list")
        return analyze(texts)
    if set(texts) != set(weights or {}):
        raise RequestError(
            f"expected one weight for each of the fields {sorted(texts)}, got weights of {sorted(weights or {})}"
        )
    lengths = {name: len(column) for name, column in texts.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(f"expected fields of one length, got {lengths}")
    items: list[list[str]] = [[] for _ in range(max(lengths.values(), default=0))]
    for name, weight in (weights or {}).items():
        for terms, more in zip(items, analyze(texts[name]), strict=True):
            terms.extend(more * weight)
    return items
