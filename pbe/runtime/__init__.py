"""Files, locks, child processes, a Ray cluster and a MongoDB server: what every stage runs on. Nothing here knows images."""
