"""Stage filter: the box rules (section 4.1), and the histograms of what they keep."""
