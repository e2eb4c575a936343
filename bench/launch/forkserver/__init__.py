"""The fork server: imports torch once, then forks every rank of every launch from that warm process.

A launch costs a fork per rank instead of an interpreter and an import of torch. The price is three rules:
the server never touches CUDA, has a single thread whenever it forks, and runs nothing of a rank or a person itself.
Where one of them is broken (a user's module initialised CUDA while it was imported, say), ranks are
spawned instead, and the result says so.

    parent  --Job-->  server  --fork-->  rank 0 .. N-1      (each in a process group of its own)
    parent  <-LaunchResult-  server  <-result pipe, log pipe, pidfd-  ranks

The parent's socket is the server's lifeline: when it closes, for whatever reason, every rank is killed, with all
that it started, and the server leaves. Ranks ask the kernel to be killed when the server dies; the server asks the
same of its parent while it has no ranks.

Read in this order:

    server.py    warms up, then answers one job after another
    launch.py    all ranks of one job, from the first start to the last reaped process
    parent_watch.py whether the host server of a cluster is stopped meanwhile
    templates.py which process forks the ranks: the server, or one that has loaded a person's workload
    template.py  that process
    start.py     a rank's process: forked, or spawned where the server must not fork
    rank_main.py what runs in that process around the rank's work: signals, output, how it reports
    rank_handle.py  that process as the server sees it: pid and pipes, and how it ended
    outcome.py   how the launch ended, from how its ranks did

``python -m bench.launch.forkserver`` starts a server, or a rank that is spawned.
"""
