"""Benchmarks: candidate and reference interleaved in one run, medians, both raw numbers and the ratio."""
