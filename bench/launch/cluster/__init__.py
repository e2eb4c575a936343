"""A cluster: one warm fork server per host, and a coordinator that sends each its slice of a launch.

    coordinator  --TCP-->  host server  --socket pair-->  fork server  --fork-->  ranks        (on each host)

A host server joins the coordinator, and both prove that they have the same secret. It forwards messages, watches its
fork server, and ends it with all its ranks when the coordinator is gone. During a launch both sides send a heartbeat.

    secret.py       the proof
    host_server.py  the process on each host
    arrival.py      a connection that has not proven the secret yet
    membership.py   the hosts that have joined the coordinator
    launcher.py     launches over these hosts
    merge.py        the result of a launch from those of its slices
    facts.py        what a host reports of itself
    interfaces.py   which network interface has which address
    start.py        starts host servers, and the coordinator
    commands.py     the commands that start host servers
    starter.py      runs them, and one again whose host server has ended
    env.py          cluster=env: which node this is
    ray_hosts.py    cluster=ray: host servers as actors
    submission.py   cluster=slurm on a login node: one job for the whole sweep
"""
