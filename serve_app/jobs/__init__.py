"""Recordings as durable jobs: rows that workers claim with a lease, audio and results as objects.

`job` defines a job, `queue` stores its row, `objects` its bytes; `worker` claims it and runs
`pipeline`, whose decisions are in pure modules next to it.
"""
