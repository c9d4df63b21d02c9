"""Patients shared among the workers of a Dask scheduler; the only room that knows Dask."""
