"""Importers of your own data, one for each format: they convert it to OpenImages' columns. See docs/own-data.md."""
