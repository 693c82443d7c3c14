"""Stage acquire: annotations and images from any source, checked, resumable, packed into image shards."""
