"""The command line: a module per command, each a dataclass of what its file may say and a `run`.

`main` finds the command and turns errors into exit codes; `keys` tells what a file may say, from
the dataclass and its own documentation; `reading` reads file and flags, and names everything that
is wrong with them at once.
"""
