"""Table 2: systems by structures by seeds by regimes, trained, tested and compared in pairs."""
