"""The HTTP service: jobs of several users, painted in batches."""
