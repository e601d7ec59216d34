"""The server, its pages, and what all pages of one training share."""
