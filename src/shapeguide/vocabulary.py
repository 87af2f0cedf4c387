"""Closed sets of names, each written once, and the few defaults that several rooms share.

It imports nothing of the package and nothing heavy, so that the command line can show its help at
once.
"""

from __future__ import annotations

USUAL_SHARE = 1.0
"""Share of the training scans whose predictions the restorer would leave alone: see
`benchmarks/restoring.py` for what less costs."""
