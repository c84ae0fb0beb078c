"""The command line: a module per command, each a dataclass of what its file may say and a `run`.

Of a module, `DEFAULT` is that dataclass with its defaults, `FILE` tells of the file, `SHARES` names
commands whose keys the file may have as well, `LEARNS` says whether it has a `--dry-run`, and
`SHARED`, where it is there, that several processes share the work.

`main` finds the command and turns errors into exit codes; `keys` tells what a file may say, from
the dataclass and its own documentation; `reading` reads file and flags, and names everything that
is wrong with them at once.
"""
