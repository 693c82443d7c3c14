"""The demo: a generated world, its S3 endpoint, a classifier of its attributes, and the recipe of the bundled weights.

Only `flows` imports it; the stages work on any data.
"""
