"""Files, dataset descriptions, preparation and the embedded synthetic cohort."""
