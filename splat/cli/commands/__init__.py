"""One file per command: ``HELP`` (one screen) and ``run(argv) -> exit code``."""
