"""Errors that a user can act on: one line that says what was wrong, where, and what to do."""


class SdcorrectError(Exception):
    """Ends the program with its message and `exit_code`, without a traceback."""

    exit_code = 1


class UsageError(SdcorrectError):
    """The command line, the job or what it names is wrong: nothing was started."""

    exit_code = 2


class PictureError(SdcorrectError):
    """One picture cannot be translated; it is recorded as failed and the job goes on.

    `sha256` is that of the picture's file, where it could be read.
    """

    def __init__(self, message: str, sha256: str | None = None) -> None:
        super().__init__(message)
        self.sha256 = sha256
