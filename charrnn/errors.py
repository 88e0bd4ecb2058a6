"""Errors that are reported to the user.

Every message is one line: what, where, found and expected, what to do.
"""


class CharRNNError(Exception):
    """A problem with a file, a text or a run; the command line prints it and exits."""

    exit_code = 1


class UsageError(CharRNNError):
    """An invalid option or argument."""

    exit_code = 2


class CorpusError(CharRNNError):
    """A text that cannot be used: missing, empty, undecodable or too short."""


class VocabularyError(CharRNNError):
    """A character or an index that isn't in a vocabulary, or cannot be."""


class CheckpointError(CharRNNError):
    """A checkpoint that cannot be read or written, or isn't the expected one."""


class TrainingError(CharRNNError):
    """A run that cannot continue: a dead worker, a loss that isn't finite."""
