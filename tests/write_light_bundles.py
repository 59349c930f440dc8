"""Write exported bundles for `make test-light`: made here, where torch is, and run there, where it is not.

Beside each bundle stands what torch answers, for the other side to compare with.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from genrec.decoders.onnx_export import export_bundle
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from tests.genrec.onnx_models import language_bundle, native_bundle, writer_bundle
from tests.toy import toy_index

HISTORIES = ([], ["i1"], ["i1", "i5", "i9"], [f"i{n}" for n in range(15)])
WISHES = Wishes(k=8, where="year >= 1985")


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    index = toy_index()
    kinds = (("native", native_bundle), ("writer", writer_bundle), ("qwen3", language_bundle))
    for name, write in kinds:
        path = write(out / name, index)
        report = export_bundle(path, int8=True, gate=0.0)
        recommender = Recommender.load(path, "torch")
        expected = {
            mode: [
                [(item.item_id, item.score) for item in answer.items]
                for answer in recommender.recommend_batch(HISTORIES, replace(WISHES, mode=mode))
            ]
            for mode in recommender.modes
        }
        (out / f"{name}.json").write_text(json.dumps({"histories": HISTORIES, "answers": expected}))
        print(f"{path}: {len(report.files)} files, at most {report.worst.share:.1e} from torch")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
