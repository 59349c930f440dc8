"""What Chat-REC must show in scripted dialogs with a planted model (:mod:`genrec.recipes.chatrec`)."""

from __future__ import annotations

from genrec.recipes.chatrec import Chat
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender


def check() -> list[Check]:
    """T0: scripted dialogs: "no horror" holds on all later turns, nothing comes twice, reasons cite the history."""
    index = films()
    genres = dict(zip(index.catalog.item_ids, index.catalog.frame["genres"].to_list(), strict=True))

    def says(before: str) -> dict[str, float]:
        line = before[before.rfind("\n") + 1 :]
        if line.startswith("What the user wants"):
            return {"explain": 1.0} if "User: Why" in before[-160:] else {"recommend": 1.0}
        return {} if line.startswith("Why") else dict.fromkeys(index.catalog.titles, 1.0)

    recommender, _ = planted_recommender(index, says)
    broken = repeated = uncited = 0
    for first in range(0, 24, 8):
        history = index.catalog.item_ids[first : first + 3]
        chat, named = Chat(recommender, history), list(history)
        for text in ("Something good.", "Without drama, please.", "More!", "Why the first?", "Others?"):
            answer = chat.turn(text)
            if chat.state.wishes:
                broken += sum("drama" in genres[one] for one in answer.ids)
            repeated += len(set(answer.ids) & set(named)) + len(answer.ids) - len(set(answer.ids))
            named += answer.ids
            if text.startswith("Why"):
                cited = [
                    one
                    for one in answer.evidence
                    if one.item_id in history and f"[{one.title}]" in answer.text
                ]
                uncited += not cited
    return [
        Check("items that a filter said earlier forbids", broken, 0, "=="),
        Check("items seen or shown before", repeated, 0, "=="),
        Check("reasons that cite nothing of the history", uncited, 0, "=="),
    ]
