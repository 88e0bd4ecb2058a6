"""What can go wrong for a user.

Every message is one line: what, where, found and expected, what to do.
"""


class CharRNNError(Exception):
    """A failure of a file, a text or a run; the command line prints it and exits."""

    exit_code = 1


class UsageError(CharRNNError):
    """An option or argument outside its range."""

    exit_code = 2


class CorpusError(CharRNNError):
    """A text that cannot be read: missing, empty, undecodable, too short."""


class VocabularyError(CharRNNError):
    """A character that the model has never seen."""


class CheckpointError(CharRNNError):
    """A checkpoint that cannot be read or written, or that isn't the one expected."""


class TrainingError(CharRNNError):
    """A run that cannot go on: a dead worker, a loss that is not finite."""
