"""``genrec recipe``: the published systems: which there are, one at work, and their checks."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from genrec.cli.options import JsonFlag, QuietFlag
from genrec.cli.output import answers, print_json, print_table, remark, stages
from genrec.cli.recommend import BundlePath
from genrec.cli.wish_options import ids_of
from genrec.generated_queries import generated_query_mode
from genrec.language_model import language_model_titles
from genrec.openai_generator import OpenAiGenerator
from genrec.recipes.answers import RecipeAnswer
from genrec.recipes.registry import RECIPES, Asked, Recipe, recipe
from genrec.recommender import Recommender
from index.errors import RequestError

app = typer.Typer(
    help="Published LLM recommenders on this engine: list them, run one, verify them.", no_args_is_help=True
)

RecipeName = Annotated[str, typer.Argument(help="A recipe; see genrec recipe list.", metavar="NAME")]
LanguageModel = Annotated[
    Path | None,
    typer.Option(
        help="A causal language model's directory: it talks and ranks, the bundle's own model retrieves.",
        metavar="DIR",
    ),
]


@app.command("list", epilog="Example: genrec recipe list --json")
def list_recipes(json: JsonFlag = False) -> None:
    """Which recipes there are: paper, what each does, takes and gives; --json also says what the model must do."""
    if json:
        print_json({"recipes": [_facts(one) for one in RECIPES.values()]})
        return
    rows = [(one.name, one.paper, one.capability, one.inputs, one.outputs) for one in RECIPES.values()]
    print_table("Recipes", ("name", "arXiv", "does", "takes", "gives"), rows, numbers_from=5)


@app.command("show", epilog="Example: genrec recipe show llmrank")
def show_recipe(name: RecipeName) -> None:
    """The page of a recipe: an example, what is faithful to the paper, what differs and why."""
    answers.print(recipe(name).about.strip(), markup=False, highlight=False)


@app.command(
    "run",
    epilog="Examples: genrec recipe run gnr runs/movies --history 1,32,50   |   "
    "genrec recipe run chatrec runs/movies --history 1,32 --say 'Something light, no horror.' --say 'Why?'",
)
def run_recipe(
    name: RecipeName,
    bundle: BundlePath,
    history: Annotated[
        str, typer.Option(help="Item ids, oldest first, separated by commas.", metavar="IDS")
    ] = "",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many items.")] = 10,
    candidates: Annotated[
        str,
        typer.Option(
            help="Of a recipe that ranks: item ids; the recommender's first twenty where not given.",
            metavar="IDS",
        ),
    ] = "",
    say: Annotated[
        list[str] | None, typer.Option(help="Of a conversation: what the user says; once for each turn.")
    ] = None,
    fields: Annotated[
        str,
        typer.Option(help="Of llmtreerec: one or two catalog fields to make the tree of.", metavar="NAMES"),
    ] = "",
    language_model: LanguageModel = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Of gpt4rec and palr: the model of an OpenAI-compatible endpoint (OPENAI_BASE_URL) that writes the "
            "queries.",
            metavar="MODEL",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run a recipe for one user. Every item it names is in the catalog."""
    chosen = recipe(name)
    recommender = open_recommender(bundle, language_model, endpoint)
    asked = Asked(
        history=tuple(ids_of(history)),
        k=k,
        candidates=tuple(ids_of(candidates)),
        said=tuple(say or ()),
        fields=tuple(one.strip() for one in fields.split(",") if one.strip()),
    )
    started = time.monotonic()
    answer = chosen.run(recommender, asked)
    if json:
        seconds = round(time.monotonic() - started, 3)
        print_json({"recipe": name, "history": list(asked.history), **asdict(answer), "seconds": seconds})
        return
    _show(chosen, answer)


@app.command(
    "verify", epilog="Examples: genrec recipe verify --all   |   genrec recipe verify llmrank chatrec --json"
)
def verify_recipes(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes to verify.", metavar="NAME")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every recipe.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run the checks that need no training: planted preferences, biases and oracles instead of a model.

    Exit code 1 where one fails. What a trained bundle shows on real data is measured by python -m benchmarks.recipes.
    """
    if bool(names) == everything:
        raise RequestError("expected names of recipes, or --all; see genrec recipe list")
    chosen = list(RECIPES.values()) if everything else [recipe(name) for name in names or ()]
    found = []
    with stages(quiet) as progress:
        for place, one in enumerate(chosen):
            progress("recipes", place, len(chosen))
            found += [(one, check) for check in one.check()]
        progress("recipes", len(chosen), len(chosen))
    passed = {one.name for one in chosen} - {one.name for one, check in found if not check.passed}
    if json:
        checks = [{"recipe": one.name, **asdict(check), "passed": check.passed} for one, check in found]
        print_json({"passed": len(passed), "recipes": len(chosen), "checks": checks})
    else:
        rows = [
            (
                one.name,
                check.what,
                f"{check.figure:.4g}",
                f"{check.sense} {check.threshold:g}",
                "yes" if check.passed else "NO",
            )
            for one, check in found
        ]
        print_table(
            "Deterministic checks (T0)",
            ("recipe", "check", "figure", "threshold", "pass"),
            rows,
            numbers_from=2,
        )
        answers.print(f"{len(passed)} of {len(chosen)} recipes pass")
    if len(passed) < len(chosen):
        raise typer.Exit(1)


def open_recommender(
    bundle: Path, language_model: Path | None = None, endpoint: str | None = None
) -> Recommender:
    """The recommender of a bundle, with a language model to talk, or an endpoint that writes queries, where given."""
    loaded = Recommender.load(bundle)
    modes = dict(loaded.modes)
    if language_model is not None:
        modes["title"] = language_model_titles(loaded.index, language_model)
    if endpoint is not None:
        modes["query"] = generated_query_mode(loaded.index, OpenAiGenerator(endpoint))
    return Recommender(loaded.index, modes=modes)


def _facts(one: Recipe) -> dict[str, Any]:
    names = ("name", "system", "paper", "capability", "inputs", "outputs", "needs")
    return {name: getattr(one, name) for name in names}


def _show(chosen: Recipe, answer: RecipeAnswer) -> None:
    for step in answer.said:
        print_table(
            step.step.capitalize(), ("", step.step), list(enumerate(step.values, start=1)), numbers_from=2
        )
    if answer.text:
        answers.print(answer.text, markup=False)
    rows = [
        (place, item.item_id, item.title, "" if item.score is None else f"{item.score:.3f}")
        for place, item in enumerate(answer.items, start=1)
    ]
    if rows:
        print_table(f"{chosen.system}", ("", "id", "title", "score"), rows, numbers_from=3)
    if not rows and not answer.text:
        remark("note: nothing passes what was asked for")
