"""The metrics, as functions of features and of images (section 4.1)."""
