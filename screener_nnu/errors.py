"""Errors that a user can cause: each says what is wrong and what to do."""


class ScreenerError(Exception):
    """A request that cannot be carried out; the message names the reason and the way out."""


class CaseError(ScreenerError):
    """One case that cannot be used; the others go on.

    Args:
        case: name of the case.
        reason: what is wrong with it and what to do, as one sentence.
    """

    def __init__(self, case: str, reason: str) -> None:
        """Builds the message `case: reason`."""
        super().__init__(f"{case}: {reason}")
        self.case = case
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Lets the error cross a process border."""
        return type(self), (self.case, self.reason)
