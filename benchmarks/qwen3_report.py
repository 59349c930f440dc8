"""What does genrec cost with a language model of Qwen3's kind: alone, in batches, served, over larger catalogs?

The bundle is that of ``benchmarks/serve_bundle.py``: random weights, 4 layers, hidden 256, 10,000 items of 4 codes, a
beam of 20. Its times mean what they say; what it recommends means nothing, so recall is not asked for. Histories are
20 random items, prompts of 84 tokens.

Run: ``python -m benchmarks.qwen3_report [--out DIR]``; writes ``benchmarks/results/qwen3`` in about ten minutes. The
same for a bundle of one's own is ``genrec bench report``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.serve_bundle import write_serve_bundle
from genrec.cli.bench_reports import report

ITEMS = 10_000
RESULTS = Path(__file__).parent / "results" / "qwen3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bundle = write_serve_bundle(Path(directory) / "qwen3-random-weights", ITEMS)
        # A proof is for models that know something: random scores leave half the catalog in the race.
        report(bundle, options.out, beams="10,20,50", sizes="1000,100000,1000000", exact=False)


if __name__ == "__main__":
    main()
