"""Stage evaluate: a bench in COCOEE's layout, metrics, baselines and the report (section 4)."""
