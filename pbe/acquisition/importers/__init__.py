"""Readers of your own data, one a format; each converts to OpenImages' columns. See docs/own-data.md."""
