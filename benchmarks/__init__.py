"""One script for each claim.

Each script saves its results and the hardware in results/. RESULTS.md is generated from them.
"""
