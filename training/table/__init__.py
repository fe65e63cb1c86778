"""`sonomime table`: the paper's Table 1 and its figures, on one's own data.

A table is a list of commands. Each row is a preset trained with `sonomime train` and measured with
`sonomime evaluate`, once for each seed; what is finished is not done again.
"""
