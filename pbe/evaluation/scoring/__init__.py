"""Scores of cases and methods, with intervals, differences and conditions."""
