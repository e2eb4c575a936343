"""One sweep: its rounds, launches, records and announcements.

Read in this order:

    run.py            the sweep, from its plan to its report
    preparation.py    launches before the rounds: reference, ceiling, check, profile
    turns.py          a cell's launches in a round
    running.py        what all launches share
    results.py        from results of ranks to fields of a record
    records.py        the records, and the launches that they lack
    report.py         the end

Before the first launch:

    hosts.py          the hosts run the same code, and are healthy
    loading.py        the workloads can be built
    resume.py         records of an earlier run are continued
    scratch.py        a folder for temporary files

Other kinds of sweeps:

    dry_run.py        dry_run=true: the plan alone
    largest_batch.py  search=max_batch: batches until one does not fit
    interleaved.py    several sweeps that share rounds
    budget.py         budget_s: whole rounds until time is over

On the terminal:

    announce.py       the plan
    estimate.py       how long it will take
    progress.py       how far it is
    breakdown.py      where its time went
"""
