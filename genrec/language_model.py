"""A language model of a directory, as it is, over a catalog: what recipes talk to zero-shot."""

from __future__ import annotations

from pathlib import Path

from genrec.bundle_text import BundleText
from genrec.modes import TrieMode, title_mode
from genrec.speech import Speech, SpeechForm
from genrec.vocabulary import TextVocabulary
from index.errors import IndexFormatError, require
from index.item_index import ItemIndex


def language_model_titles(index: ItemIndex, directory: Path) -> TrieMode:
    """The mode ``title`` of a causal language model that reads prose, fine-tuned or not.

    Beside the modes of a bundle it makes a recommender whose own model retrieves and whose language model talks::

        bundle = Recommender.load("runs/movies")
        Recommender(bundle.index, modes={**bundle.modes, "title": language_model_titles(bundle.index, path)})

    Args:
        index: the items.
        directory: as ``save_pretrained`` of transformers writes it, the tokenizer with it; nothing is downloaded, and
            no code of the directory is run.

    Raises:
        IndexFormatError: the directory holds no such model.
        DecoderError: the model cannot be decoded here.
        MissingDependencyError: torch or transformers is not installed.
    """
    transformers = require("transformers", extra="train", purpose="Running a language model")
    vocabulary = TextVocabulary.of_pretrained(directory)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(directory), local_files_only=True)
    except (OSError, ValueError) as error:
        raise IndexFormatError(
            f"expected a causal language model in {directory}, got: {error}; save one with save_pretrained"
        ) from error
    from genrec.decoders.torch_decoder import TorchDecoder

    text = BundleText.of(index, vocabulary, SpeechForm("prose"))
    return title_mode(Speech(index, text.form, vocabulary), text.titles, TorchDecoder(model))
