"""Claims about DDP and ZeRO, and numbers that others published, each tested by a measurement.

Introductions to distributed training make claims that can be tested, and some contradict others. Each is here with an
experiment and a rule that was fixed before it ran; its verdict is one of

    supported, refuted, partly, not testable here

with the numbers behind it. A published number is held against ours: reproduced, reproduced in shape (order, sign or
ratio), contradicted, or not testable here. ``python -m claims`` measures, docs/claims/ has what was measured last.

Read in this order:

    claim.py      what a claim and a finding are
    suite.py      how an experiment asks for measurements: sweeps of this suite, and small programs on ranks
    ranks.py      runs a function on ranks of its own
    topics/       the claims, a module a topic
    published/    published numbers, a module for each way to hold them against ours
    programs/     what runs on ranks where no sweep can show a thing: wrong rules, killed ranks, traces
    shape.py      order, sign or ratio of published numbers, held against ours
    to_target.py  training until a loss
    register.py   all claims, in order
    findings.py   the verdicts with their numbers, as a file
    document.py   docs/claims/, from the findings
    plots.py      its figures
"""
