"""How a training fails when nobody made a mistake in the code."""

from __future__ import annotations

from splat.errors import UserError


class TrainingError(UserError):
    """Training cannot go on (memory, a loss that is no number). One line, with what to do next."""

    exit_code = 1


class EvaluationAbandoned(Exception):
    """Raised by an evaluation function that noticed an interrupt; the trainer goes on to obey it."""
