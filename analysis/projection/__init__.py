"""Step time, throughput and memory at world sizes that were not measured, with an error that was checked.

One configuration at all its world sizes is a curve. A projection of a sweep takes these steps:

- ``curve.py``      groups records to curves, and reads from each record what one step computes and communicates
- ``traffic.py``    the collectives of a step at another world size
- ``fabric.py``     the time of one collective: latency and bandwidth, inside a host and between hosts
- ``measured_links.py``  the same, from collectives that were timed by themselves
- ``schedule.py``   how much communication computation hides, bucket by bucket
- ``model.py``      the time of a step at any world size, in parts that add up
- ``fit.py``        latency, bandwidth and compute time from the measured step times
- ``least_squares.py``  the method of the fit
- ``held_out.py``   the error: fitted on at most half the largest world size, predicting the larger ones
- ``project.py``    the answer: a band per world size, the fastest configuration, and where each stops paying off
- ``memory.py``     peak memory per rank at another world size
- ``text.py``       the answer in sentences

It assumes that hosts are alike, that the network gives every pair of hosts the same rate (full bisection), and that
nothing else uses it. What the model leaves out shows in the held-out error, and widens the band.
"""
