"""One script for each claim; each keeps its numbers with the hardware they are of, and RESULTS.md is written from these."""
