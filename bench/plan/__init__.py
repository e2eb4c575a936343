"""The cells of a sweep: what each setting resolves to, and what is not supported.

Read in this order:

    resolve.py       from settings to cells: device, backend, batch sizes
    cell.py          a cell: what it resolved to, or why it cannot run
    jobs.py          its launches
    hosts.py         how many of its ranks run on each host
    collectives.py   the cells of workload=collectives, which have no engine
    unsupported.py   combinations of settings that no engine supports
    alternatives.py  engines and stages that support what this one does not
"""
