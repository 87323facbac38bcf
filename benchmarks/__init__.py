"""One script for each claim.

A script saves its numbers and the hardware in results/; RESULTS.md is written from these files.
"""
