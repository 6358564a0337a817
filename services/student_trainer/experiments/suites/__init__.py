"""`student-trainer bench --suite NAME`: a table or a figure of the paper, run again on any models and data.

NAME.yaml -> suite.py (what the file says) -> plan.py (its cells) -> sweep -> summary.py, the rows by data
set -> table.py, plots.py, report.py
"""
