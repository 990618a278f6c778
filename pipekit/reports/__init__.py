"""Where the time goes, and what a batch looks like: tables, verdicts and figures.
What opens or runs a pipeline does not belong here: reports get records and rows.
"""
