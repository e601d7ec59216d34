"""Dragging a part of a model: from a few handles to a row edit."""
