"""Why a command ends before it has begun, through no bug of ours."""


class StartError(Exception):
    """What a command needs cannot be had: a port, a file; one sentence that names it."""
