"""What `genrec demo` runs on: about a thousand real works, and simulated people who enjoy them.

``works.jsonl`` lists real films, novels, series, albums, video games and plays. Titles, years and creators
are facts; genres come from the closed list :data:`GENRES`; each description is one line of our own. A year
is that of the first release, publication or performance, for old plays the best known of these.

The histories are **simulated** (:mod:`genrec.demo.simulator`): no real person is behind any of them, so
figures measured on them show that the machinery works, never how well it would do on real users.
"""

from __future__ import annotations

from genrec.demo.simulator import simulate_histories
from genrec.demo.works import GENRES, KINDS, read_works, works_path

__all__ = ["GENRES", "KINDS", "read_works", "simulate_histories", "works_path"]
