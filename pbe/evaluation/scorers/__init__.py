"""Scorers of single cases: each turns metrics into columns of the case-level table (see `CaseScorer`)."""
