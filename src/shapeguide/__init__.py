"""Shape-guided segmentation of anatomical structures in 3D scans."""

from importlib.metadata import version

__version__ = version("shapeguide")
