"""Stage filter: rejects boxes by the rules of section 4.1 and plots the histograms of those it keeps."""
