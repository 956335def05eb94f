"""Recordings as durable jobs: rows that workers claim with a lease, audio and results as objects.

`job` says what a job is, `queue` keeps its row, `objects` its bytes; `worker` claims it and drives
`pipeline`, whose decisions stand in pure files beside it.
"""
