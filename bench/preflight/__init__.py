"""What is checked before anything is measured: this machine, or the hosts of a cluster and the links between them.

machine.py   this machine: versions, load, disk, GPUs
hosts.py     measures the hosts of a cluster
judge.py     names the hosts that are slow or differ
table.py     the result on a terminal
"""
