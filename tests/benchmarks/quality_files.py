"""Tiny data sets in each shape that the quality benchmark reads, made of the toy catalog and its users."""

from __future__ import annotations

import json
from pathlib import Path

from tests.toy import GENRES, toy_catalog, toy_histories


def write_sequences(folder: Path, users: int = 60) -> None:
    """Items as JSON lines, one user a line: the shape of Amazon's sets."""
    folder.mkdir(parents=True)
    toy_catalog().frame.write_ndjson(folder / "items.jsonl")
    histories = toy_histories(users)
    lines = [
        " ".join([name, *(f"i{row}" for row in histories.events(user))])
        for user, name in enumerate(histories.user_ids)
    ]
    (folder / "sequences.txt").write_text("\n".join(lines) + "\n")


def write_movielens(folder: Path, users: int = 60) -> None:
    """Two tables with times, rows of all users mixed."""
    folder.mkdir(parents=True)
    films = ["movieId,title,genres"]
    films += [
        f"{row},{title.title()} ({1980 + row}),{GENRES[row % 4].title()}|Other"
        for row, title in enumerate(toy_catalog().titles)
    ]
    (folder / "movies.csv").write_text("\n".join(films) + "\n")
    histories = toy_histories(users)
    rated = [
        (1_000_000_000 + 1000 * place + user, f"{user},{row},4.0,{1_000_000_000 + 1000 * place + user}")
        for user in range(users)
        for place, row in enumerate(histories.events(user).tolist())
    ]
    lines = ["userId,movieId,rating,timestamp", *(line for _, line in sorted(rated))]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")


def write_rows(folder: Path, users: int = 60, *, longest: int = 3) -> None:
    """Rows that come split, eight to one to one, histories cut to the last few: the shape of MiniOneRec's sets."""
    folder.mkdir(parents=True)
    toy_catalog().frame.write_ndjson(folder / "items.jsonl")
    histories = toy_histories(users)
    total = histories.num_events
    parts: dict[str, list[str]] = {"train_recovered": [], "valid": [], "test": []}
    ends = {user: int(length) for user, length in enumerate(histories.lengths)}
    part_of: dict[tuple[int, int], str] = {}
    for name, share in (("test", 0.1), ("valid", 0.1)):  # the last events of users in turn
        for turn in range(int(share * total) + 1):  # one more: half an event rounds up
            user = turn % users
            if ends[user] > 2:
                ends[user] -= 1
                part_of[user, ends[user]] = name
    for user, name in enumerate(histories.user_ids):
        events = histories.events(user).tolist()
        for place in range(1, len(events)):
            row = {
                "user_id": name,
                "history": events[max(0, place - longest) : place],
                "item_id": events[place],
            }
            row = {**row, "history": [f"i{one}" for one in row["history"]], "item_id": f"i{row['item_id']}"}
            parts[part_of.get((user, place), "train_recovered")].append(json.dumps(row))
    for name, lines in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
