"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can mend. The CLI prints the message as one line and exits with ``exit_code``."""

    exit_code = 2
