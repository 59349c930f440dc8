"""Run in an environment without torch (`make test-light`): index and search work, and so do exported bundles.

The bundles were written by ``tests/write_light_bundles.py`` where torch is. Not a pytest module: the light
environment has no pytest either.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def check_index_and_search() -> None:
    import genrec
    import index  # noqa: F401
    from genrec.demo import works_path
    from index.build import IndexSettings, build_index
    from index.errors import MissingDependencyError
    from tests.fake_decoder import FakeDecoder

    catalog = genrec.read_catalog(works_path()).catalog
    built = build_index(catalog, None, IndexSettings(text_encoder="auto"))
    with tempfile.TemporaryDirectory() as directory:
        built.save(Path(directory) / "works.index")
        loaded = genrec.load_index(Path(directory) / "works.index", verify=True)
    recommender = genrec.Recommender(loaded, FakeDecoder(sum(loaded.level_sizes)))
    history = catalog.item_ids[:3]
    answer = recommender.recommend(history, k=10)
    ids = [item.item_id for item in answer.items]
    assert len(set(ids)) == 10
    assert set(ids) <= set(catalog.item_ids) - set(history)
    try:
        from genrec.cli.train import train

        train(index=Path("x"), interactions=Path("y"), out=Path("z"))
    except MissingDependencyError as error:
        assert "pip install 'genrec[train]'" in str(error)
    else:
        raise AssertionError("training without torch did not say what to install")
    print(f"light install: 10 recommendations over {len(catalog)} works without torch")


def check_exported_bundles(directory: Path) -> None:
    import numpy as np

    import genrec
    from genrec.wishes import Wishes
    from index.errors import GenrecError, MissingDependencyError

    written = sorted(directory.glob("*.json"))
    assert len(written) == 3, f"expected three bundles in {directory}; run: make test-light"
    for answers in written:
        bundle = answers.with_suffix("")
        said = json.loads(answers.read_text())
        recommender = genrec.Recommender.load(bundle, verify=True)
        assert list(recommender.modes) == list(said["answers"]), bundle
        for mode, answers_of_mode in said["answers"].items():
            wishes = Wishes(k=8, where="year >= 1985", mode=mode)
            found = recommender.recommend_batch(said["histories"], wishes)
            for one, expected in zip(found, answers_of_mode, strict=True):
                assert [item.item_id for item in one.items] == [item_id for item_id, _ in expected], (
                    bundle,
                    mode,
                )
                assert np.allclose(
                    [item.score for item in one.items], [score for _, score in expected], atol=1e-4
                )
        rough = genrec.Recommender.load(bundle, "onnx-int8").recommend(["i1"], k=8)
        assert len(rough.items) == 8
        try:
            genrec.Recommender.load(bundle, "torch")
        except MissingDependencyError as error:
            assert "pip install 'genrec[train]'" in str(error)
        else:
            raise GenrecError("expected to be told to install torch")
        print(
            f"light install: {bundle.name} answers as in torch, without torch, by {', '.join(recommender.modes)}"
        )


def main() -> None:
    assert importlib.util.find_spec("torch") is None, "this check is for an environment without torch"
    check_index_and_search()
    check_exported_bundles(Path(sys.argv[1]))
    assert not {"torch", "transformers", "onnx"} & set(sys.modules)
    print("2 passed, 0 failed")


if __name__ == "__main__":
    main()
