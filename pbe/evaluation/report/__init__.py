"""The report of an evaluation: a page without external files, a sheet of examples, and tables for DVC and Prefect."""
