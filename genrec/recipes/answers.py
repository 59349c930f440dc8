"""What a recipe answers: items of the catalog, what was said on the way, and text whose mentions are items."""

from __future__ import annotations

from dataclasses import dataclass

from index.types import ItemId


@dataclass(frozen=True, slots=True)
class NamedItem:
    """An item that an answer names."""

    item_id: ItemId
    title: str
    score: float | None = None
    """What the recipe ranks by (each says what that is); None where the order is all there is."""


@dataclass(frozen=True, slots=True)
class Said:
    """One step of a recipe: what was asked for, and what the model said."""

    step: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecipeAnswer:
    """The answer of any recipe."""

    items: tuple[NamedItem, ...]  # best first; in a text, in the order of their mentions
    said: tuple[Said, ...] = ()
    text: str = ""  # of recipes that write: every item in it stands in ``items``
    evidence: tuple[NamedItem, ...] = ()  # items of the history that the recipe names as its reasons

    @property
    def ids(self) -> list[ItemId]:
        """The ids of the items, in their order."""
        return [item.item_id for item in self.items]

    def said_at(self, step: str) -> tuple[str, ...]:
        """What the model said at a step; nothing where the recipe did not take it."""
        return next((one.values for one in self.said if one.step == step), ())
