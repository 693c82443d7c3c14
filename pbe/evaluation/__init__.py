"""The benchmark in COCOEE's layout: cases, metrics, baselines, the report (section 4)."""
