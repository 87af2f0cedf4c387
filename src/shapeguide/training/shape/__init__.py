"""What the shape network learns: objectives of the shape stage, and the masks they draw from."""

from shapeguide.training.shape.mask_bank import MaskBank, mask_bank

__all__ = ["MaskBank", "mask_bank"]
