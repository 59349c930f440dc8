"""Recipes: published recommenders of the literature, each a thin file over the one engine.

::

    from genrec.recipes import llm_rank, narrative
    llm_rank(recommender, ["film-0003"], candidates=["film-0006", "film-0008"]).ids

They use recommenders, sessions, grammars and scores; none looks at a logit or a token, and none reads the text
of a model: what upstream code parses, a grammar holds here. So no answer names an item that is not in the
catalog. Which recipes there are, with papers and checks, is :mod:`genrec.recipes.registry`'s; ``genrec recipe
list`` prints it.
"""

from genrec.recipes.answers import NamedItem, RecipeAnswer, Said
from genrec.recipes.brew360 import BrewTask, Judged, brew
from genrec.recipes.chatrec import Chat
from genrec.recipes.conversational import zero_shot_crs
from genrec.recipes.genrec_titles import gen_rec
from genrec.recipes.gnr import narrative
from genrec.recipes.gpt4rec import gpt4_rec
from genrec.recipes.llmrank import llm_rank
from genrec.recipes.llmtreerec import CategoryTree, llm_tree_rec
from genrec.recipes.nir_prompts import nir, user_filtering
from genrec.recipes.profile_palr import palr
from genrec.recipes.tallrec import tall_rec, tall_rec_examples

__all__ = [
    "BrewTask",
    "CategoryTree",
    "Chat",
    "Judged",
    "NamedItem",
    "RecipeAnswer",
    "Said",
    "brew",
    "gen_rec",
    "gpt4_rec",
    "llm_rank",
    "llm_tree_rec",
    "narrative",
    "nir",
    "palr",
    "tall_rec",
    "tall_rec_examples",
    "user_filtering",
    "zero_shot_crs",
]
