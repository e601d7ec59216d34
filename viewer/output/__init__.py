"""What leaves the page: files, films, and the frame they are written in."""
