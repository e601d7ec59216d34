"""Numbers and curves that panels show."""
