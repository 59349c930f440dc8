"""A text generator over a decoder of this process; see :class:`genrec.text_generator.TextGenerator`."""

from __future__ import annotations

from collections.abc import Sequence

from genrec.decoders.base import Decoder, Tokens
from genrec.grammars.base import Vocabulary
from genrec.grammars.text import Text
from genrec.text_beams import Beams
from genrec.text_generator import GeneratedText, check_generate, cut_at
from genrec.text_samples import Samples
from genrec.text_search import Written, write


class ModelGenerator:
    """Texts from a decoder.

    Args:
        decoder: the model; its token ids are the vocabulary's.
        vocabulary: what it speaks.
        seed: of what is drawn.
    """

    def __init__(self, decoder: Decoder, vocabulary: Vocabulary, seed: int = 0) -> None:
        self._decoder = decoder
        self._vocabulary = vocabulary
        self._seed = seed

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedText]]:
        """``n`` texts for each prompt: drawn, or with temperature 0 those that a beam of n finds, best first.

        A beam may find fewer than n. Scores are log-probabilities of the texts before they are cut.

        Raises:
            RequestError: see :meth:`genrec.text_generator.TextGenerator.generate`.
            DecoderError: a prompt cannot be read, or prompt and text outgrow the model's positions.
        """
        check_generate(n, max_tokens, temperature, stop)
        method = Beams(n) if temperature == 0 else Samples(n, self._seed, temperature)
        texts = write(
            self._decoder,
            self._vocabulary,
            [(Tokens(self._vocabulary.prompt(prompt)),) for prompt in prompts],
            Text(),
            method,
            max_tokens=max_tokens,
        )
        made = [[self._text(one, stop) for one in own] for own in texts]
        return [sorted(own, key=lambda one: -(one.score or 0.0)) for own in made]

    def _text(self, written: Written, stop: Sequence[str]) -> GeneratedText:
        text = cut_at(written.value, stop)
        ended = len(written.ids) and written.ids[-1] == self._vocabulary.end
        is_cut = len(text) < len(written.value.strip())
        score = float(written.log_probabilities.sum())
        return GeneratedText(text, "stop" if ended or is_cut else "length", score)
