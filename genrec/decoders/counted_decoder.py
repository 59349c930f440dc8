"""CountedDecoder: any decoder, and how often its model was run."""

from __future__ import annotations

from collections.abc import Sequence

from genrec.decoders.base import Decoder, Hidden, Prefilled, Prompt, ScoresVocabulary, State
from index.types import Float32Array, IntArray


class CountedDecoder:
    """Implements :class:`genrec.decoders.base.Decoder` around another one; results pass through unchanged."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.calls = 0  # of `prefill` and `extend`

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """See the contract."""
        self.calls += 1
        return self._decoder.prefill(prompts)

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """See the contract."""
        self.calls += 1
        return self._decoder.extend(states, request, token, parent)

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """See the contract."""
        return self._decoder.edge_logits(hidden, row, token)

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """See the contract."""
        return self._decoder.log_normalizer(hidden, depth)


class CountedWriter(CountedDecoder):
    """The same around a :class:`~genrec.decoders.base.ScoresVocabulary`."""

    _decoder: ScoresVocabulary

    def logits(self, hidden: Hidden) -> Float32Array:
        """See the contract."""
        return self._decoder.logits(hidden)


def counted_decoder(decoder: Decoder) -> CountedDecoder:
    """A decoder that can do what the other one can."""
    return CountedWriter(decoder) if isinstance(decoder, ScoresVocabulary) else CountedDecoder(decoder)
