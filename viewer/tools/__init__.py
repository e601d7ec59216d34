"""Tools of the page: what mouse strokes mean. Each turns strokes into operations of ``splat.edit.ops``."""
