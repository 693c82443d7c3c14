"""Stage curate: measures every image, rejects faulty and duplicate ones, and applies the verdicts of reviewers."""
