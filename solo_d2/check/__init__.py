"""Know a dataset before it is trained on: ``solo-d2 check``.

Nothing is imported here, so that the processes that measure masks start quickly.
"""
