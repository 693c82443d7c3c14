"""From any source into data/raw: fetched, checked, packed into shards, resumed after a kill."""
