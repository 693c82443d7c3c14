"""Painting a bench: what is painted, in which processes, and what is kept from earlier runs."""
