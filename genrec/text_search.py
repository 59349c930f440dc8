"""Writing texts: prompts in, texts out, free or under a grammar, by beams or by sampling.

::

    write(decoder, vocabulary, prompts, Text(), Beams(5, length_penalty=1.0), max_tokens=32)
    write(decoder, vocabulary, prompts, Choice(["yes", "no"]), Samples(10, seed=1), max_tokens=8)

Prompts are searched together; each answer is that of its prompt alone, up to float rounding of the decoder. A grammar
holds in every text, whatever the model says: what may not follow is masked before anything is chosen.
:class:`genrec.session.Session` writes several texts one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from genrec.decoders.base import Decoder, Prompt
from genrec.grammars.base import Automaton, Grammar, Vocabulary
from genrec.search_batch import Normalize
from genrec.text_batch import Stand, TextBatch, Written
from genrec.text_beams import Beams
from genrec.text_samples import Samples
from index.errors import RequestError

__all__ = ["Beams", "Samples", "Written", "write", "write_on"]


def write(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompts: Sequence[Prompt],
    grammar: Grammar | Sequence[Grammar],
    method: Beams | Samples | None = None,
    *,
    max_tokens: int,
    normalize: Normalize = "catalog",
) -> list[list[Written]]:
    """Write texts behind prompts.

    Args:
        decoder: the model; its token ids are the vocabulary's.
        vocabulary: what the model speaks.
        prompts: B of them.
        grammar: what a text may be: one for all, or one each.
        method: :class:`Beams` or :class:`Samples`; None takes the most probable step each time.
        max_tokens: most tokens of a text, its terminator included. Free text is cut there; whatever a grammar
            still asks for is written before.
        normalize: what the score of a step with a choice is normalised over: the choices there are
            (``"catalog"``) or all tokens (``"vocabulary"``). Free text is always scored over all tokens.

    Returns:
        For each prompt its texts: of beams the best first and none twice, of samples in the order drawn.

    Raises:
        RequestError: a grammar that contradicts itself, or needs more tokens than there may be.
        DecoderError: a prompt cannot be read, or prompt and text outgrow the model's positions.
    """
    grammars = [grammar] * len(prompts) if not isinstance(grammar, Sequence) else list(grammar)
    if len(grammars) != len(prompts):
        raise RequestError(
            f"expected one grammar, or one for each of {len(prompts)} prompts, got {len(grammars)}"
        )
    if not prompts:
        return []
    compiled = {id(one): one.compile(vocabulary) for one in grammars}
    prefilled = decoder.prefill(prompts)
    stands = [Stand(state, hidden) for state, hidden in zip(prefilled.states, prefilled.hidden, strict=True)]
    return write_on(
        decoder,
        vocabulary.size,
        stands,
        [compiled[id(one)] for one in grammars],
        method,
        max_tokens=[max_tokens] * len(stands),
        normalize=normalize,
    )


def write_on(
    decoder: Decoder,
    size: int,
    stands: Sequence[Stand],
    automata: Sequence[Automaton],
    method: Beams | Samples | None = None,
    *,
    max_tokens: Sequence[int],
    normalize: Normalize = "catalog",
) -> list[list[Written]]:
    """As :func:`write`, behind whatever states hold already. They are grown by what is tried on the way."""
    if normalize not in ("catalog", "vocabulary"):
        raise RequestError(f"expected normalize='catalog' or 'vocabulary', got {normalize!r}")
    batch = TextBatch(decoder, size, stands, automata, max_tokens, normalize)
    return (method or Beams()).run(batch)
