"""Grammars: what a text may be. Each is said in a caller's own words and compiled for the model's vocabulary.

They know no model, no scores and no search; see :mod:`genrec.grammars.base` for the contract.
"""

from genrec.grammars.base import Grammar
from genrec.grammars.text import Text

__all__ = ["Grammar", "Text"]
