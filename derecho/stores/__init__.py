"""Stores: durable homes of runs, journals, activities and timers."""
