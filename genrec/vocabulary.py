"""TextVocabulary: what text a model speaks, as token ids of its own vocabulary.

Prompts and answers are tokenised apart and then laid end to end, in training as in inference. So it does not
matter what a tokenizer would have merged across the border between them, and the questions that tokenizer
families answer differently are decided once, when a vocabulary is made:

- *The leading space.* An answer continues a prompt. Byte-level tokenizers (GPT-2, Llama 3, Qwen) write such a
  word as " Dune", the SentencePiece kind (Llama 2, T5) puts the space there itself. Which one it is is asked of
  the tokenizer.
- *What stands around a prompt.* What the tokenizer's own template puts in front (a BOS, in some families) stands
  in front of a prompt. What it puts behind (an EOS) is left out where the answer follows in the same sequence,
  and kept for an encoder.
- *The end.* Every answer ends in one token, the model's EOS, and no title can contain it: text that looks like a
  special token is read as plain text.
- *The plan.* A native model says which item it means before it writes a word: an answer of its begins with the item's
  codes, a token for each, behind the tokens of text. They say nothing.

Texts are one line: runs of white space count as one space. It needs the ``tokenizers`` package, not torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from index.errors import IdentifierError, IndexFormatError, RequestError, require
from index.types import Int64Array, IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE, FACTS_FILE = "tokenizer.json", "vocabulary.json"
END = "<end>"
MARKS = ("title", "query", "name", "code")
"""Tokens ``<title>``, ``<query>`` … of a vocabulary trained here: the end of a compact prompt says what is wanted."""
LONGEST_ANSWER = 64
"""Tokens. 1.9 % of the titles of Amazon Beauty are that long or longer in a vocabulary of 4,033 trained on them."""


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What a tokenizer's own file does not say."""

    end: int  # id of the terminator of every answer
    before: tuple[int, ...] = ()  # ids in front of every prompt
    behind: tuple[int, ...] = ()  # ids behind every prompt: of an encoder only
    lead: str = " "  # what an answer begins with, as text, so that it continues a prompt
    longest: int = LONGEST_ANSWER  # most tokens of an answer, the terminator included; longer ones are cut
    plan: tuple[int, ...] = ()  # codes at each level, where an answer begins with the codes of an item

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; without a plan where there is none, as before there were any."""
        values = {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(self).items()}
        return values if self.plan else {name: one for name, one in values.items() if name != "plan"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TextFacts:
        """Read :meth:`to_dict` back.

        Raises:
            IndexFormatError: an unknown or missing key, or a value that makes no sense.
        """
        try:
            lists = {"before": values["before"], "behind": values["behind"], "plan": values.get("plan", ())}
            facts = cls(**{**values, **{name: tuple(one) for name, one in lists.items()}})
            if facts.end < 0 or facts.longest < 2 or min(facts.plan, default=1) < 1:
                raise ValueError(values)
        except (TypeError, KeyError, ValueError) as error:
            raise IndexFormatError(
                f"expected the facts of a vocabulary ({', '.join(cls.__slots__)}), got {values}; "
                "make the bundle again"
            ) from error
        return facts


class TextVocabulary:
    """A tokenizer, and how a model uses it.

    Args:
        tokenizer: of the ``tokenizers`` package; settings that change how it encodes are reset here.
        facts: what its own file does not say.

    Raises:
        IndexFormatError: the terminator is no token of the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, facts: TextFacts) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # a title that reads "</s>" is text; not kept in the file
        if tokenizer.id_to_token(facts.end) is None:
            raise IndexFormatError(
                f"expected the terminator among the tokens of the vocabulary, got id {facts.end}; "
                "name the model's EOS token in tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.facts = facts
        self.words = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        """Tokens of text: 0 .. words - 1. Those of a plan stand behind them."""
        self.size = self.words + sum(facts.plan)

    @property
    def end(self) -> int:
        """The terminator of every answer."""
        return self.facts.end

    @property
    def content_hash(self) -> str:
        """sha256 of all that decides which ids a text becomes."""
        facts = json.dumps(self.facts.to_dict(), sort_keys=True)
        return hashlib.sha256(f"{self.tokenizer.to_str()}\n{facts}".encode()).hexdigest()

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text as an answer that follows a prompt, terminator included.

        An empty text is the terminator alone; one of more than ``facts.longest`` tokens is cut to as many.
        """
        lead, end, most = self.facts.lead, self.facts.end, self.facts.longest - 1
        lines = [one_line(text) for text in texts]
        encoded = self.tokenizer.encode_batch(
            [lead + line if line else "" for line in lines], add_special_tokens=False
        )
        return [[*[token for token in one.ids if token != end][:most], end] for one in encoded]

    def planned(self, level_tokens: IntArray) -> IntArray:
        """The tokens of a plan, of an item's codes as tokens of the trie of codes (int, any shape)."""
        return level_tokens + self.words

    def prompt(self, text: str) -> Int64Array:
        """int64[P]: a prose prompt that an answer will follow, line breaks kept, without a space at its end."""
        ids = self.tokenizer.encode(text.rstrip(), add_special_tokens=False).ids
        return np.array([*self.facts.before, *ids, *self.facts.behind], np.int64)

    def text(self, ids: Sequence[int] | IntArray) -> str:
        """What an answer says: the inverse of :meth:`answers`, up to what was cut. Ends at the first terminator."""
        plain = [int(token) for token in ids]
        if self.end in plain:
            plain = plain[: plain.index(self.end)]
        return one_line(self.decoded(plain))

    def literal(self, text: str) -> list[int]:
        """Token ids of a text as it stands, white space and all, to be laid behind other tokens.

        A tokenizer that puts a leading space itself is asked for the text behind something, so that it does not.
        """
        if self.facts.lead:
            return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        for anchor in ("\n", "a", "."):
            before = self.tokenizer.encode(anchor, add_special_tokens=False).ids
            both = self.tokenizer.encode(anchor + text, add_special_tokens=False).ids
            if before and both[: len(before)] == before:
                return list(both[len(before) :])
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of tokens as it stands, white space kept.

        A plan, the terminator and other special tokens say nothing.
        """
        words = [int(token) for token in ids if token < self.words]
        return str(self.tokenizer.decode(words, skip_special_tokens=True))

    def mark(self, name: str) -> int:
        """The id of the token ``<name>``.

        Raises:
            IdentifierError: this vocabulary has no such token.
        """
        found = self.tokenizer.token_to_id(f"<{name}>")
        if found is None:
            raise IdentifierError(
                f"expected a vocabulary with the token '<{name}>', got one of {self.size} tokens without it; "
                "use prompts in prose, or a vocabulary trained by TextVocabulary.train"
            )
        return int(found)

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and ``vocabulary.json`` into an existing directory."""
        (directory / TOKENIZER_FILE).write_text(self.tokenizer.to_str(), "utf-8")
        facts = json.dumps(self.facts.to_dict(), indent=2)
        (directory / FACTS_FILE).write_text(facts + "\n", "utf-8")

    @classmethod
    def load(cls, directory: Path) -> TextVocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            IndexFormatError: a file is missing or damaged.
            MissingDependencyError: the ``tokenizers`` package is not installed.
        """
        return cls(_read_tokenizer(directory), TextFacts.from_dict(_read_json(directory / FACTS_FILE)))

    @classmethod
    def train(
        cls,
        titles: Iterable[str],
        size: int,
        *,
        marks: Sequence[str] = MARKS,
        longest: int = LONGEST_ANSWER,
        plan: Sequence[int] = (),
    ) -> TextVocabulary:
        """A vocabulary of the catalog's own words: byte-level BPE, so that no text is unknown to it.

        The same titles make the same vocabulary, on any machine.

        Args:
            titles: what to learn from; any other text can still be written.
            size: tokens wanted: ``<end>``, the marks, 256 bytes, and merges as far as the titles have them.
            marks: names of the tokens that say what a compact prompt wants.
            longest: most tokens of an answer, a plan not counted.
            plan: codes at each level, where answers begin with a plan.

        Raises:
            RequestError: ``size`` leaves no room for the bytes.
            MissingDependencyError: the ``tokenizers`` package is not installed.
        """
        smallest = 256 + 1 + len(marks)
        if size < smallest:
            raise RequestError(f"expected a vocabulary of at least {smallest} tokens, got {size}")
        package = _tokenizers()
        tokenizer = package.Tokenizer(package.models.BPE())
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END, *(f"<{mark}>" for mark in marks)],
            initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator((" " + one_line(title) for title in titles), trainer)
        end = int(tokenizer.token_to_id(END))
        return cls(tokenizer, TextFacts(end=end, longest=longest, plan=tuple(plan)))

    @classmethod
    def of_pretrained(
        cls, directory: Path, *, is_encoder: bool | None = None, longest: int = LONGEST_ANSWER
    ) -> TextVocabulary:
        """The vocabulary of a Hugging Face model directory.

        Args:
            directory: holds ``tokenizer.json`` and ``tokenizer_config.json``.
            is_encoder: whether prompts go to an encoder of their own; as ``config.json`` says where not given.
            longest: most tokens of an answer.

        Raises:
            IndexFormatError: a file is missing, or no EOS token is named.
            MissingDependencyError: the ``tokenizers`` package is not installed.
        """
        tokenizer = _read_tokenizer(directory)
        config = _read_json(directory / "tokenizer_config.json")
        if is_encoder is None:
            model = directory / "config.json"
            is_encoder = model.is_file() and bool(_read_json(model).get("is_encoder_decoder", False))
        end = _token_id(tokenizer, config, "eos_token")
        if end is None:
            raise IndexFormatError(
                f"expected an eos_token of the vocabulary in {directory / 'tokenizer_config.json'}, got "
                f"{config.get('eos_token')!r}; every answer ends in it: name one"
            )
        before, behind = _template(tokenizer)
        bos = _token_id(tokenizer, config, "bos_token")
        if bos is not None and "add_bos_token" in config:  # it outranks the template, as in transformers
            before = tuple(token for token in before if token != bos)
            before = (bos, *before) if config["add_bos_token"] else before
        return cls(
            tokenizer,
            TextFacts(end, before, behind if is_encoder else (), _lead(tokenizer), longest),
        )


def one_line(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def _tokenizers() -> Any:
    package: Any = require("tokenizers", extra="serve", purpose="Reading and writing text")
    return package


def _read_tokenizer(directory: Path) -> Tokenizer:
    path = directory / TOKENIZER_FILE
    package = _tokenizers()
    if not path.is_file():
        raise IndexFormatError(
            f"expected the file {path}, got none; save the model's tokenizer with "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(DIRECTORY)"
        )
    try:
        tokenizer: Tokenizer = package.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exceptions
        raise IndexFormatError(
            f"expected a tokenizer in {path}, got: {error}; restore the file, or save the tokenizer again"
        ) from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise IndexFormatError(f"expected a JSON file in {path}, got: {error}; restore it") from error
    if not isinstance(values, dict):
        raise IndexFormatError(f"expected a JSON object in {path}, got {type(values).__name__}; restore it")
    return values


def _token_id(tokenizer: Tokenizer, config: dict[str, Any], name: str) -> int | None:
    """The id of a token that a tokenizer_config names, as text or as an object."""
    token = config.get(name)
    content = token.get("content") if isinstance(token, dict) else token
    return None if content is None else tokenizer.token_to_id(content)


def _template(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer's template puts in front of a text and behind it."""
    encoding = tokenizer.encode("a", add_special_tokens=True)
    text = [place for place, is_added in enumerate(encoding.special_tokens_mask) if not is_added]
    if not text:  # the letter itself is special, or unknown
        return (), ()
    return tuple(encoding.ids[: text[0]]), tuple(encoding.ids[text[-1] + 1 :])


def _lead(tokenizer: Tokenizer) -> str:
    """What a text must begin with to be tokenised as if a word stood in front of it."""

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    alone = ids("a")
    both = ids("a the")
    continuation = both[len(alone) :] if both[: len(alone)] == alone else both
    return next((lead for lead in ("", " ") if ids(f"{lead}the") == continuation), " ")
