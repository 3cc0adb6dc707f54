"""What remask is measured with; docs/results/benchmarks.md and the pages of results say how and
what came.

search: task × optimiser × seed, in which only the optimiser varies.  tasks, optimisers: what it is
played with.  acceptance: what single candidates are worth, and rules that accept them on simulated
ones.  denoiser: speed, fills and training of the DLM.
Scripts are run from a checkout, as `python benchmarks/search/run.py --help`; each writes its
figures to benchmarks/results, with the command and the commit that made them.
"""
