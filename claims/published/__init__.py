"""Numbers that others published of DDP and ZeRO, each held against an experiment or a projection of this suite.

memory.py     model state and optimizer state, counted at the allocator
sent.py       bytes, counted at collectives and by the kernel
emulated.py   times of ranks that sleep, behind emulated links
update.py     the time of an optimizer's step
curves.py     scaling curves as records, for a projection
judgement.py  a projected value against a published one
projected.py  scaling curves: fitted on small world sizes, judged on large ones
horovod.py    the same for Horovod's three models
"""
