"""Run in an environment without torch (`make test-light`): the index and the search must work all the same.

Not a pytest module: the light environment has no pytest either.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    assert importlib.util.find_spec("torch") is None, "this check is for an environment without torch"
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
    assert "torch" not in sys.modules
    print(f"light install: 10 recommendations over {len(catalog)} works without torch")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
