"""The panels of a page: each adds its controls to ``page.tabs``."""

PANELS = (
    "status:build",
    "training:build",
    "display:build",
    "cameras:build",
    "inspect:build",
    "selecting:build",
    "editing:build",
    "dragging:build",
    "measuring:build",
    "path:build",
    "export:build",
    "help:build",
)
"""Module in this folder and function, in the order of the page. A function takes the ``Page`` and returns nothing."""
