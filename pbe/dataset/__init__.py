"""The formats that stages share: OpenImages' tables, image files, image shards, object masks, attributions."""
