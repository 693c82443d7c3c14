"""Which of the images are fit to learn from: measured, compared, judged, looked through by people."""
