"""Networks: the segmenter and the shape network."""
