"""The names of methods in scores and folders, and of the files that an evaluation leaves in reports/evaluation."""

METHOD, SOURCE, COPY_PASTE = "paint_by_example", "source", "copy_paste"
TEXT_INPAINTING, TEXT_CAPTION, STOCK = "text_inpainting", "text_caption", "stock"

CASE_SCORES, FEATURES = "case_scores.parquet", "features.npz"
COMPARISON, CONDITIONS = "comparison.json", "evaluation.json"
