"""What users decode under constraints with today: Hugging Face's prefix processor over a trie of their own.

It masks: it returns the scores with -inf for what the catalog does not allow, and leaves adding scores, filters
and choosing to the caller. This module needs torch and transformers, and marisa-trie for the second of its tries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from genrec.bench.stands import Stand
from index.errors import require

_SURROGATES = 0xD800  # code points from here to 0xDFFF are no characters
_SKIPPED = 0x800


class PrefixTrie(Protocol):
    """Anything that says which tokens may follow a prefix."""

    def get(self, prefix: list[int]) -> list[int]:
        """The tokens below a prefix."""


class DictTrie:
    """The trie of dictionaries that users of ``prefix_allowed_tokens_fn`` write."""

    def __init__(self, paths: Sequence[Sequence[int]]) -> None:
        self.root: dict[int, Any] = {}
        for path in paths:
            node = self.root
            for token in path:
                node = node.setdefault(token, {})

    def get(self, prefix: list[int]) -> list[int]:
        """The tokens below a prefix."""
        node = self.root
        for token in prefix:
            node = node[token]
        return list(node)


class MarisaTokens:
    """Paths as strings, one character a token, in a marisa trie; children are read off the keys below."""

    def __init__(self, paths: Sequence[Sequence[int]]) -> None:
        import marisa_trie

        self.trie = marisa_trie.Trie("".join(map(_character, path)) for path in paths)

    def get(self, prefix: list[int]) -> list[int]:
        """The tokens below a prefix."""
        text = "".join(map(_character, prefix))
        return [_token(c) for c in {key[len(text)] for key in self.trie.iterkeys(text)}]


def peer_tries() -> tuple[dict[str, Callable[[Sequence[Sequence[int]]], PrefixTrie]], dict[str, str]]:
    """The peers that can run here, by name, and for the others how to install them."""
    runs: dict[str, Callable[[Sequence[Sequence[int]]], PrefixTrie]] = {}
    missing = {}
    has_processor = find_spec("torch") is not None and find_spec("transformers") is not None
    for name, maker, here, extra in (
        ("hf dict", DictTrie, has_processor, "train"),
        ("hf marisa", MarisaTokens, has_processor and find_spec("marisa_trie") is not None, "train,bench"),
    ):
        if here:
            runs[name] = maker
        else:
            missing[name] = f"not installed; pip install 'genrec[{extra}]'"
    return runs, missing


def prefix_processor(trie: PrefixTrie, stand: Stand) -> Callable[[], object]:
    """One step of the prefix processor of ``generate``, ready to call.

    Raises:
        MissingDependencyError: torch or transformers is not installed.
    """
    torch: Any = require("torch", extra="train", purpose="The prefix processor of Hugging Face")
    transformers: Any = require("transformers", extra="train", purpose="The prefix processor of Hugging Face")
    processor = transformers.PrefixConstrainedLogitsProcessor(
        lambda _, sent: trie.get(sent.tolist()), len(stand)
    )
    ids, scores = torch.from_numpy(stand.prefix), torch.from_numpy(stand.log_prob)
    return lambda: processor(ids, scores)


def _character(token: int) -> str:
    return chr(token if token < _SURROGATES else token + _SKIPPED)


def _token(character: str) -> int:
    code = ord(character)
    return code if code < _SURROGATES else code - _SKIPPED
