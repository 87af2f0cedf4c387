"""Table 1: do shape networks tell people apart?"""
