"""The files that the documentation names: sixty films as MovieLens and Amazon have them, a language model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from tests.genrec.tiny_checkpoints import PROMPT, checkpoint

FILMS = 60
USERS = 40
GENRES = ("Comedy", "Drama", "Horror", "Western")
WORDS = (
    "River", "Night", "Garden", "Letter", "Stranger", "Harbour", "Winter", "Mirror", "Train", "Island", "Window",
    "Orchard", "Lantern", "Station", "Meadow",
)  # fmt: skip


def write_files(directory: Path) -> None:
    """Catalogs, histories, users of a night job, keys of a server, and a model of random weights."""
    films = ["movieId,title,genres"]
    products = []
    for film in range(1, FILMS + 1):
        genre, word = GENRES[film % 4], WORDS[(film - 1) // 4]
        films.append(f"{film},The {word} {genre} ({1980 + film % 40}),{genre}|Adventure")
        products.append(
            {"asin": f"B{film:03d}", "title": f"{word} Cream No. {film}", "brand": genre, "price": film / 2}
        )
    (directory / "movies.csv").write_text("\n".join(films) + "\n")
    (directory / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in products))
    (directory / "new_movies.csv").write_text("movieId,title,genres\n900,The Last Comedy (2001),Comedy\n")

    ratings, sequences, users = ["userId,movieId,rating,timestamp"], [], []
    rng = np.random.default_rng(0)
    for user in range(USERS):
        walk = (rng.integers(0, FILMS) + 4 * np.arange(rng.integers(6, 10))) % FILMS + 1
        ratings += [f"u{user},{film},4.0,{1_000_000 + 100 * user + place}" for place, film in enumerate(walk)]
        sequences.append(" ".join([f"u{user}", *(f"B{film:03d}" for film in walk)]))
        users.append({"user_id": f"u{user}", "history": [str(film) for film in walk]})
    (directory / "ratings.csv").write_text("\n".join(ratings) + "\n")
    (directory / "sequences.txt").write_text("\n".join(sequences) + "\n")
    pl.DataFrame(users).write_parquet(directory / "users.parquet")
    (directory / "keys.txt").write_text("# one key a line\na-key-of-sixteen-or-more\n")
    (directory / "admins.txt").write_text("a-key-that-may-reload\n")
    texts = [f"{PROMPT} The {word} {genre}\n- " for word in WORDS for genre in GENRES]
    checkpoint(directory / "Qwen3-0.6B", "qwen3", texts=texts, max_position_embeddings=4096)
