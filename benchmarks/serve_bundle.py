"""The bundle that the serving benchmark serves, from both sides: a random-weight model and a catalog of codes.

The model and the codes are those of ``benchmarks/beam_workloads.py`` (4 layers, hidden 256; 10,000 items of 4
Zipf-skewed codes). A history of 63 items is a prompt of 256 tokens: 4 to begin with, 4 an item.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.beam_workloads import CODES, FIRST_CODE, LEVELS, codes_workload
from genrec.bundle import save_bundle
from genrec.decoders.exported import CAUSAL_LM
from genrec.decoders.onnx_export import export_bundle
from genrec.decoders.prompt_reader import HistoryForm
from genrec.tasks import TaskDefaults
from index.bm25.bm25s_index import Bm25sIndex
from index.catalog import Catalog
from index.item_index import SEMANTIC_ID, ItemIndex
from index.item_vectors import FusedVectors, VectorRecipe
from index.semantic_ids import Codebooks
from index.text_encoders import TfidfSvdEncoder
from index.trie import build_trie
from index.types import Int64Array

START = (0, 1, 2, 3)
HISTORY = 63  # items; 4 + 4 x 63 = 256 tokens
BEAMS = 20
_DIMENSION = 8  # of vectors that nothing here looks at


def write_serve_bundle(path: Path, items: int) -> Path:
    """Write the bundle, exported, with the model's own files for the peer."""
    work = codes_workload(items, 0)
    titles = [f"Item {row}" for row in range(items)]
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(items)], "title": titles}))
    paths = work.trie.path_tokens.reshape(items, LEVELS)[work.trie.rank_of_item] - FIRST_CODE
    nothing = np.zeros((items, _DIMENSION), np.float32)
    index = ItemIndex(
        catalog=catalog,
        trie=build_trie(paths),
        level_sizes=(CODES,) * LEVELS,
        codebooks=Codebooks(np.zeros((CODES * LEVELS, 2 * _DIMENSION), np.float32), (CODES,) * LEVELS),
        vectors=FusedVectors(VectorRecipe(), nothing, nothing, np.zeros(2 * _DIMENSION, np.float32)),
        encoder=TfidfSvdEncoder.fit(titles, dimension=_DIMENSION),
        bm25=Bm25sIndex.build(titles),
        trained_events=np.zeros(0, np.uint64),
        settings={},
    )
    form = HistoryForm(START, HISTORY)
    save_bundle(
        path,
        index,
        work.model.save_pretrained,
        family=CAUSAL_LM,
        tasks={SEMANTIC_ID: TaskDefaults(beam=BEAMS)},
        trained_events=np.zeros(0, np.uint64),
        facts={"token_offset": FIRST_CODE, "history": form.to_dict()},
    )
    export_bundle(path, checks=1)
    return path


def histories(items: int, users: int, length: int, seed: int) -> Int64Array:
    """int64[users, length]: catalog rows of distinct users."""
    return np.random.default_rng(seed).integers(0, items, (users, length))
