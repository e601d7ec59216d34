"""Builds, renders and writes the embedded capture. Needs ``mitsuba``; nothing of the app imports it."""
