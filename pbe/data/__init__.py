"""Data: sources, download, boxes, curation, shards, and the demo world."""
