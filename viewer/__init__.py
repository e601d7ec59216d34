"""The web viewer: pages in a browser that watch, inspect and edit a training or an opened file."""
