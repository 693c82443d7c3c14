"""The demo world: scenes whose every attribute is known, as a bucket with faults, behind an S3 endpoint."""
