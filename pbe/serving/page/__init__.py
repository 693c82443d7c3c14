"""The page: a person drops a picture, marks a part of it, and paints an object into it in the browser."""
