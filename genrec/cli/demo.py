"""``genrec demo``: the main job, end to end, on the catalog that comes with the package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from genrec.bundle import load_bundle
from genrec.cli.options import JsonFlag, QuietFlag
from genrec.cli.output import answers, print_json, print_table, remark, stages
from genrec.cli.recommend import show_recommendation
from genrec.demo import read_works, simulate_histories, works_path
from genrec.evaluation.protocol import evaluate
from genrec.recommender import Recommender
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.catalog_readers import read_catalog
from index.counted import counted
from index.errors import require
from index.history_readers import read_interactions

USERS = 3_000
HISTORY = (("Dune", "novel"), ("Alien", "film"), ("Blade Runner", "film"))
"""A sample history, oldest first: titles and kinds, since titles repeat across kinds."""


def demo(
    out: Annotated[Path, typer.Option(help="Where to write the demo's files.", metavar="DIR")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option(min=0.01, help="Training budget.")] = 2.0,
    users: Annotated[int, typer.Option(min=10, help="Simulated users.")] = USERS,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Index, train, recommend and measure on a thousand real works.

    The works are real; the users are simulated, and everything measured on them says so.
    """
    require("torch", extra="train", purpose="The demo trains a model, which")
    from genrec.training.pretrain import TrainSettings
    from genrec.training.train_bundle import train_bundle

    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    catalog = read_catalog(works_path()).catalog
    interactions = out / "simulated-interactions.csv"
    simulate_histories(read_works(), users=users).write_csv(interactions)
    histories = read_interactions(interactions, catalog).histories
    with stages(quiet) as progress:
        # TF-IDF keeps the demo's set-up small; see README for sentence vectors.
        index = build_index(catalog, histories, IndexSettings(text_encoder="tfidf"), progress)
        index.save(out / "works.index")
        train_bundle(
            index,
            histories,
            out / "works",
            settings=TrainSettings(minutes=minutes),
            progress=lambda at: progress("training", round(1000 * at.done), 1000),
            stage=progress,
        )
        bundle = load_bundle(out / "works")
        recommender = Recommender.of_bundle(bundle)
        result = evaluate(recommender, bundle.trained_events(), histories, progress=progress)
    history = sample_history(catalog)
    answer = recommender.recommend(history)
    seconds = round(time.monotonic() - started, 1)
    if json:
        print_json(
            {
                "simulated_users": result.users,
                "history": history,
                "items": [{"item_id": item.item_id, "title": item.title} for item in answer.items],
                "systems": result.systems,
                "seconds": seconds,
            }
        )
        return
    answers.print()
    show_recommendation(recommender, history, answer)
    answers.print()
    columns = ("recall@10", "ndcg@10", "coverage", "validity")
    rows = [(name, *(f"{figures[c]:.4f}" for c in columns)) for name, figures in result.systems.items()]
    print_table(
        f"{counted(result.users, 'simulated user')}, last event held out",
        ("system", *columns),
        rows,
        numbers_from=1,
    )
    answers.print()
    remark(f"Done in {seconds:.0f} s. Files are in {out}. Try:")
    remark(f"  genrec recommend {out / 'works'} --history {','.join(history)} -k 5")


def sample_history(catalog: Catalog) -> list[str]:
    """Item ids of the demo's sample history."""
    by_name = {(item.title, item.fields["kind"]): item.item_id for item in catalog}
    return [by_name[name] for name in HISTORY]
