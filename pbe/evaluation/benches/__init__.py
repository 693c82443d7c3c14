"""Benches in COCOEE's layout: reading, checking, making; results of other tools on them."""
