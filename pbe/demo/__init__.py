"""The demo: a generated world, the S3 endpoint that serves it, a classifier that reads its attributes, and its weights' recipe.

Only `flows` imports it; the stages work on any data.
"""
