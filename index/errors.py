"""Every error genrec raises on purpose.

::

    GenrecError
    ├── CatalogError           (ValueError)   a catalog file or its columns
    ├── HistoryError           (ValueError)   an interactions file, a split, a history
    ├── IdentifierError        (ValueError)   semantic IDs, token paths, the trie
    ├── IndexFormatError       (ValueError)   an index or bundle directory on disk
    ├── FilterError            (ValueError)   a request's filter
    ├── RequestError           (ValueError)   k, beam width and the like
    ├── DecoderError           (RuntimeError) a model that does not fit its index
    ├── TrainingError          (RuntimeError) a training run that cannot start, go on or resume
    ├── EndpointError          (RuntimeError) a model behind a network that does not answer as it should
    ├── BatchError             (RuntimeError) a batch job that cannot start, go on or resume
    ├── LeakageError           (RuntimeError) evaluation on data the bundle has been trained on
    └── MissingDependencyError (ImportError)  an optional extra that is not installed

A message says what was expected, what came, and what to do about it. What genrec does not cover (a full
disk, a killed process) keeps its own exception.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class GenrecError(Exception):
    """Root of the tree: catch this to catch everything genrec raises on purpose."""


class CatalogError(GenrecError, ValueError):
    """A catalog file cannot be read, or its rows do not make a catalog."""


class HistoryError(GenrecError, ValueError):
    """Interactions cannot be read, or cannot be split as asked."""


class IdentifierError(GenrecError, ValueError):
    """Token paths do not make a trie, or vectors do not make codes."""


class IndexFormatError(GenrecError, ValueError):
    """A directory is not the index or bundle it should be; names the file and the remedy."""


class FilterError(GenrecError, ValueError):
    """A request's filter names an unknown field or compares what cannot be compared."""


class RequestError(GenrecError, ValueError):
    """A request's numbers make no sense, such as ``k=0``."""


class DecoderError(GenrecError, RuntimeError):
    """A decoder does not fit the index or the prompt it is given."""


class TrainingError(GenrecError, RuntimeError):
    """Training cannot start, go on, or resume."""


class EndpointError(GenrecError, RuntimeError):
    """A text endpoint refuses, is not reached, or does not answer in the form it should."""


class BatchError(GenrecError, RuntimeError):
    """A batch job cannot start, go on, or resume."""


class LeakageError(GenrecError, RuntimeError):
    """The events to be predicted are among those the bundle was built or trained on."""


class MissingDependencyError(GenrecError, ImportError):
    """An optional package is needed and not installed; says which extra carries it."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import ``module`` or say which extra to install.

    Raises:
        MissingDependencyError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package '{module}', which is not installed. "
            f"Install it with: pip install 'genrec[{extra}]'"
        ) from error
