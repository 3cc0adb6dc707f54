"""Traces to candidate prompts: which traces are read, where is edited, and what may not pass.

    traces ─► select_traces ─► maskers ─► the denoiser fills ─► edits ─► guard ─► proposals

Knows prompts, traces and the protocol of a denoiser. Knows nothing of targets, scores and runs.
"""
