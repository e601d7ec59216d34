"""From a snapshot and a look to pixels."""
