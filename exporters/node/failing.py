"""What a collector may fail with: everything else is a bug of ours, and ends the process."""


class NotCollectedError(Exception):
    """What was to be read is not there, or is not what it should be; one sentence that says which and why."""


class GarbledError(NotCollectedError):
    """An answer that cannot be read: nothing of it is shown, for a number misread is worse than none."""


class RefusedError(NotCollectedError):
    """A daemon answered with an error: it does not know the command, or has no such thing."""


class LateError(NotCollectedError):
    """No answer in time."""


FAILURES = (NotCollectedError, OSError)
