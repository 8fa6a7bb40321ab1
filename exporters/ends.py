"""Why a command ends before it has begun, through no bug of ours."""

import argparse
from typing import Never


class StartError(Exception):
    """What a command needs cannot be had: a port, a file; one sentence that names it."""


class Parser(argparse.ArgumentParser):
    """Flags of a command that gives a verdict: bad ones end it with 1, for 2 is a verdict."""

    def error(self, message: str) -> Never:
        self.exit(1, f"{self.prog}: {message}\n")
