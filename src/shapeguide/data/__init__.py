"""Files, dataset descriptions, preprocessing and the embedded synthetic cohort."""
