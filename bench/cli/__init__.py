"""The command line: overrides, help, errors and the sweep's folder.

``bench.__main__`` uses these in turn:

    signals.py      a terminal that closes
    flags.py        flags, before Hydra sees them
    one_process.py  one command is one sweep
    main_sweep.py   the main sweep fits the machine
    overrides.py    which overrides are valid
    compose.py      Hydra composes the settings
    help.py         --help
    withheld.py     passwords stay out of Hydra's files
    folder.py       the sweep's folder
    errors.py       one line and an exit status
"""
