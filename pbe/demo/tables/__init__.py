"""The paper's tables, repeated on the demo world: which models are trained, how they are scored, and the tables."""
