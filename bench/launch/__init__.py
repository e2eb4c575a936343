"""Starting and ending the processes of all ranks.

launcher.py        the protocol of launchers
local.py           the launcher of one machine
cluster/           the launcher of several hosts
forkserver/        the process on each host that ranks are forked from
server_process.py  that process, as its parent sees it
channel.py         messages between all of these
orphans.py         what ranks have left behind
prctl.py           what the kernel does when a parent ends
interpreter.py     another Python for this suite
malloc.py          freed memory is kept where time is measured
compile_cache.py   where compiled code is kept
"""
