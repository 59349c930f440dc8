"""Grammars: what a text may be. Each is said in a caller's own words and compiled for the model's vocabulary.

=========================  ==========================================  ===============================
``Text()``                 free text                                   str
``Choice(options)``        one of some strings                         str
``Titles(trie, allowed)``  one item, by its title                      tuple of catalog rows
``Distinct(of, count)``    several of a Choice or of Titles            list of values, none twice
``Schema(template, …)``    fields between literal text                 dict of values by field
``Markup(trie, …)``        free text whose mentions are items          Marked: text and mentions
=========================  ==========================================  ===============================

They know no model, no scores and no search; see :mod:`genrec.grammars.base` for the contract, and
:class:`genrec.session.Session` for who uses them.
"""

from genrec.grammars.base import Grammar
from genrec.grammars.closed import Choice, Titles
from genrec.grammars.distinct import Distinct
from genrec.grammars.markup import Marked, Markup, Mention
from genrec.grammars.schema import Schema
from genrec.grammars.text import Text

__all__ = ["Choice", "Distinct", "Grammar", "Marked", "Markup", "Mention", "Schema", "Text", "Titles"]
