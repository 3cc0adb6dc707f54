"""Benchmarks of the denoiser by itself."""
