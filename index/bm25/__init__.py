"""BM25 over item texts: one analyser, one contract (``base``), one file per engine behind it."""
