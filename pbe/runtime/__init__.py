"""Files, locks, child processes, a Ray cluster and a MongoDB server; nothing here knows images."""
