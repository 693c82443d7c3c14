"""The real images of FID, QS and KID, and their statistics as a file."""
