"""The machine: hardware, versions, interference, energy, peak FLOP/s and source."""
