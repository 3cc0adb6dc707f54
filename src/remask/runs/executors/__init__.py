"""Where pure work is done beside the driver: processes on this machine, or actors of Ray.

The driver alone opens the store, books calls and decides; a worker gets an Item and returns its
result. `Pool` is the same for all backends, which only start and ask a worker.
"""
